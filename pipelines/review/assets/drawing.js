// The label map that is drawn: pen, eraser, fill, interpolation between slices, undo and redo.
import { pixelOf, walk } from "./geometry.js";

const MOST_UNDO = 200;

export class Drawing {
  constructor(geometry, values) {
    this.geometry = geometry;
    this.values = values; // Uint16Array, first axis fastest
    this.past = [];
    this.future = [];
    this.open = null; // index -> value before, of the stroke in hand
    this.version = 0;
    this.saved = 0;
  }

  get isChanged() { return this.version !== this.saved; }

  begin() { this.open = new Map(); }

  set(index, value) {
    const before = this.values[index];
    if (before === value) return;
    if (!this.open.has(index)) this.open.set(index, before);
    this.values[index] = value;
  }

  end() {
    const stroke = this.open;
    this.open = null;
    if (!stroke || !stroke.size) return 0;
    const indices = Uint32Array.from(stroke.keys()), before = Uint16Array.from(stroke.values());
    const after = Uint16Array.from(indices, (index) => this.values[index]);
    this.past.push({ indices, before, after, from: this.version });
    if (this.past.length > MOST_UNDO) this.past.shift();
    this.future = [];
    this.top = (this.top ?? 0) + 1;
    this.version = this.top;
    return stroke.size;
  }

  undo() {
    const step = this.past.pop();
    if (!step) return false;
    step.indices.forEach((index, n) => { this.values[index] = step.before[n]; });
    this.future.push({ ...step, to: this.version });
    this.version = step.from;
    return true;
  }

  redo() {
    const step = this.future.pop();
    if (!step) return false;
    step.indices.forEach((index, n) => { this.values[index] = step.after[n]; });
    this.past.push(step);
    this.version = step.to;
    return true;
  }

  // A disc of a diameter in pixels; of an even one the centre is a corner of the pixel.
  stamp(plane, voxel, size, value, only) {
    const [cx, cy] = pixelOf(plane, voxel), reach = (size - 1) / 2;
    const low = Math.floor(-reach), high = Math.ceil(reach), shift = size % 2 ? 0 : 0.5;
    const step = walk(this.geometry, plane, voxel);
    const limit = size === 1 ? 0.25 : (size / 2) ** 2;
    for (let dy = low; dy <= high; dy++) {
      for (let dx = low; dx <= high; dx++) {
        if ((dx + shift) ** 2 + (dy + shift) ** 2 > limit) continue;
        const x = cx + dx, y = cy + dy;
        if (x < 0 || y < 0 || x >= plane.width || y >= plane.height) continue;
        this.paint(step.start + x * step.right + y * step.down, value, only);
      }
    }
  }

  // `only`: the one value that may be replaced; undefined for any.
  paint(index, value, only) {
    if (only === undefined || this.values[index] === only) this.set(index, value);
  }

  line(plane, from, to, size, value, only) {
    const [x0, y0] = pixelOf(plane, from), [x1, y1] = pixelOf(plane, to);
    const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
    for (let n = 0; n <= steps; n++) {
      const voxel = to.map((end, axis) => Math.round(from[axis] + ((end - from[axis]) * n) / steps));
      this.stamp(plane, voxel, size, value, only);
    }
  }

  // Fill the connected area of one value in a plane.
  fill(plane, voxel, value) {
    const { start, right, down } = walk(this.geometry, plane, voxel), { width, height } = plane;
    const at = (x, y) => start + x * right + y * down;
    const [x0, y0] = pixelOf(plane, voxel), target = this.values[at(x0, y0)];
    if (target === value) return;
    const stack = [[x0, y0]];
    while (stack.length) {
      const [x, y] = stack.pop();
      if (x < 0 || y < 0 || x >= width || y >= height || this.values[at(x, y)] !== target) continue;
      this.set(at(x, y), value);
      stack.push([x + 1, y], [x - 1, y], [x, y + 1], [x, y - 1]);
    }
  }

  // Slices of a plane that contain a value.
  slicesWith(plane, value) {
    const { axis } = plane.through, { shape, stride } = this.geometry, found = new Set();
    for (let index = 0; index < this.values.length; index++) {
      if (this.values[index] === value) found.add(Math.floor(index / stride[axis]) % shape[axis]);
    }
    return [...found].sort((a, b) => a - b);
  }

  // Draw a structure in the empty slices between the nearest ones that contain it: the signed
  // distances of the two outlines, in mm, mixed by the place between them.
  interpolate(plane, voxel, value) {
    const { axis } = plane.through, here = voxel[axis];
    const slices = this.slicesWith(plane, value);
    const gaps = slices.slice(1).map((end, n) => [slices[n], end]).filter(([a, b]) => b - a > 1);
    const gap = gaps.find(([a, b]) => a <= here && here <= b);
    if (!gap) return 0;
    const sheet = (number) => walk(this.geometry, plane, voxel.map((v, n) => (n === axis ? number : v)));
    const [low, high] = gap.map((number) => this.signed(plane, sheet(number), value));
    let drawn = 0;
    for (let number = gap[0] + 1; number < gap[1]; number++) {
      const part = (number - gap[0]) / (gap[1] - gap[0]), { start, right, down } = sheet(number);
      for (let y = 0, n = 0; y < plane.height; y++) {
        for (let x = 0; x < plane.width; x++, n++) {
          if (low[n] * (1 - part) + high[n] * part >= 0) continue;
          const index = start + x * right + y * down;
          if (this.values[index] === 0) { this.set(index, value); drawn++; }
        }
      }
    }
    return drawn;
  }

  // Signed distance to the outline of a value in a slice, negative inside.
  signed(plane, { start, right, down }, value) {
    const inside = new Uint8Array(plane.width * plane.height);
    for (let y = 0, n = 0; y < plane.height; y++) {
      for (let x = 0; x < plane.width; x++, n++) inside[n] = this.values[start + x * right + y * down] === value;
    }
    const out = distances(inside, 1, plane), into = distances(inside, 0, plane);
    return out.map((distance, n) => distance - into[n]);
  }
}

// Distance of each pixel to the nearest one of a kind, in mm (Felzenszwalb and Huttenlocher 2012).
const distances = (inside, kind, { width, height, pixel }) => {
  const FAR = 1e20, squared = Float64Array.from(inside, (value) => (value === kind ? 0 : FAR));
  const pass = (count, offset, step, edge) => {
    const row = new Float64Array(count), at = new Int32Array(count), border = new Float64Array(count + 1);
    for (let n = 0; n < count; n++) row[n] = squared[offset + n * step];
    let k = 0;
    border[0] = -FAR;
    border[1] = FAR;
    const cross = (q, p) =>
      (row[q] + (q * edge) ** 2 - row[p] - (p * edge) ** 2) / (2 * edge * edge * (q - p));
    for (let q = 1; q < count; q++) {
      let s = cross(q, at[k]);
      while (s <= border[k] && k > 0) s = cross(q, at[--k]);
      if (s > border[k]) k++;
      at[k] = q;
      border[k] = s;
      border[k + 1] = FAR;
    }
    for (let q = 0, n = 0; q < count; q++) {
      while (border[n + 1] < q) n++;
      squared[offset + q * step] = ((q - at[n]) * edge) ** 2 + row[at[n]];
    }
  };
  for (let x = 0; x < width; x++) pass(height, x, width, pixel[1]);
  for (let y = 0; y < height; y++) pass(width, y * width, 1, pixel[0]);
  return squared.map(Math.sqrt);
};
