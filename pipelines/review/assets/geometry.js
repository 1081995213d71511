// Planes of a volume: which voxel axis goes to the right, down and through, and in which sense.

// World axes are those of the affine: 0 to the patient's right, 1 to anterior, 2 to superior.
const PLANES = {
  axial: { right: [0, -1], down: [1, -1], through: [2, 1], marks: ["R", "L", "A", "P"] },
  coronal: { right: [0, -1], down: [2, -1], through: [1, 1], marks: ["R", "L", "S", "I"] },
  sagittal: { right: [1, -1], down: [2, -1], through: [0, 1], marks: ["A", "P", "S", "I"] },
};

// For each world axis the voxel axis nearest to it, and its sense there.
const axesOf = (affine) => {
  const spacing = [0, 1, 2].map((j) => Math.hypot(affine[0][j], affine[1][j], affine[2][j]) || 1);
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  const fit = (order) => order.reduce((sum, j, world) => sum + Math.abs(affine[world][j]) / spacing[j], 0);
  const best = orders.reduce((a, b) => (fit(b) > fit(a) + 1e-9 ? b : a));
  return { spacing, axes: best.map((j, world) => ({ axis: j, sign: affine[world][j] < 0 ? -1 : 1 })) };
};

export const geometryOf = (study) => {
  const { spacing, axes } = axesOf(study.affine), shape = study.shape;
  const stride = [1, shape[0], shape[0] * shape[1]];
  const planes = {};
  for (const [name, plane] of Object.entries(PLANES)) {
    const part = ([world, sense]) => ({ axis: axes[world].axis, sign: axes[world].sign * sense });
    const right = part(plane.right), down = part(plane.down), through = part(plane.through);
    planes[name] = {
      name, right, down, through, marks: study.states_spacing ? plane.marks : ["", "", "", ""],
      width: shape[right.axis], height: shape[down.axis], depth: shape[through.axis],
      pixel: [spacing[right.axis], spacing[down.axis]],
    };
  }
  const used = shape[2] === 1 ? ["axial"] : ["axial", "coronal", "sagittal"];
  if (shape[2] === 1) used[0] = Object.keys(planes).find((name) => planes[name].through.axis === 2);
  return { shape, spacing, stride, planes, used, size: shape[0] * shape[1] * shape[2] };
};

// Voxel of a pixel of a plane that goes through a voxel.
export const voxelAt = (plane, x, y, through) => {
  const voxel = [...through];
  voxel[plane.right.axis] = plane.right.sign > 0 ? x : plane.width - 1 - x;
  voxel[plane.down.axis] = plane.down.sign > 0 ? y : plane.height - 1 - y;
  return voxel;
};

// Pixel of a voxel in a plane.
export const pixelOf = (plane, voxel) => [
  plane.right.sign > 0 ? voxel[plane.right.axis] : plane.width - 1 - voxel[plane.right.axis],
  plane.down.sign > 0 ? voxel[plane.down.axis] : plane.height - 1 - voxel[plane.down.axis],
];

// Indices into a volume of the pixels of a plane, row by row: start and the two steps.
export const walk = (geometry, plane, voxel) => {
  const { stride } = geometry, origin = voxelAt(plane, 0, 0, voxel);
  return {
    start: origin[0] * stride[0] + origin[1] * stride[1] + origin[2] * stride[2],
    right: stride[plane.right.axis] * plane.right.sign,
    down: stride[plane.down.axis] * plane.down.sign,
  };
};
