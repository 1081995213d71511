// The label map in 3D, by NiiVue, which is loaded at its first use.

let library = null, scene = null;

const load = () => library ??= new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = "assets/niivue.js";
  script.onload = () => resolve(window.niivue);
  script.onerror = () => reject(new Error("the 3D viewer could not be loaded"));
  document.head.append(script);
});

// A NIfTI-1 file of 16-bit voxels.
const niftiOf = (values, { shape, spacing }, affine) => {
  const buffer = new ArrayBuffer(352 + values.byteLength), view = new DataView(buffer);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((n, i) => view.setInt16(40 + 2 * i, n, true));
  view.setInt16(70, 512, true);
  view.setInt16(72, 16, true);
  [1, ...spacing].forEach((edge, i) => view.setFloat32(76 + 4 * i, edge, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setUint8(123, 2);
  view.setInt16(254, 1, true);
  affine.slice(0, 3).forEach((row, r) => row.forEach((v, c) => view.setFloat32(280 + 16 * r + 4 * c, v, true)));
  [0x6e, 0x2b, 0x31, 0].forEach((byte, i) => view.setUint8(344 + i, byte));
  new Uint8Array(buffer, 352).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return buffer;
};

const base64Of = (buffer) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(new Blob([buffer]));
});

const palette = (structures) => {
  const part = (i) => [0, ...structures.map((one) => one.colour[i])];
  return { R: part(0), G: part(1), B: part(2), A: [0, ...structures.map(() => 255)], I: [0, ...structures.map((_, n) => n + 1)] };
};

// Show a label map; its values become the places of the structures, so that palettes stay short.
export const show = async (canvas, values, geometry, study, hidden) => {
  const { Niivue, NVImage } = await load();
  if (!scene) {
    scene = new Niivue({ backColor: [0.03, 0.035, 0.045, 1], show3Dcrosshair: false, loadingText: "", isOrientCube: study.states_spacing });
    await scene.attachToCanvas(canvas);
  }
  const places = new Map(study.structures.map((one, n) => [one.value, hidden.has(one.value) ? 0 : n + 1]));
  const numbered = Uint16Array.from(values, (value) => places.get(value) ?? 0);
  for (const old of [...scene.volumes]) scene.removeVolume(old);
  const base64 = await base64Of(niftiOf(numbered, geometry, study.affine));
  const volume = await NVImage.loadFromBase64({ base64, name: "labels.nii" });
  volume.setColormapLabel(palette(study.structures));
  scene.addVolume(volume);
  scene.setSliceType(scene.sliceTypeRender);
  canvas.dataset.state = "ready";
};
