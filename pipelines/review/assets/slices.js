// One plane on a canvas: image, labels, crosshair, marks; pixels and voxels both ways.
import { pixelOf, voxelAt, walk } from "./geometry.js";

export class SliceView {
  constructor(canvas, name) {
    this.canvas = canvas;
    this.name = name;
    this.grey = document.createElement("canvas");
    this.colour = document.createElement("canvas");
    this.zoom = 1;
    this.shift = [0, 0];
  }

  // Where the slice is on the canvas, in device pixels.
  frame(plane) {
    const { width, height } = this.canvas, [sx, sy] = plane.pixel;
    const fit = Math.min(width / (plane.width * sx), height / (plane.height * sy)) * 0.98 * this.zoom;
    const w = plane.width * sx * fit, h = plane.height * sy * fit;
    return { x: (width - w) / 2 + this.shift[0], y: (height - h) / 2 + this.shift[1], w, h };
  }

  fit() {
    const ratio = devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
  }

  // Voxel under the pointer; null outside the slice.
  voxelOf(event, geometry, cursor) {
    const plane = geometry.planes[this.name], frame = this.frame(plane), box = this.canvas.getBoundingClientRect();
    const px = (event.clientX - box.left) * (this.canvas.width / box.width);
    const py = (event.clientY - box.top) * (this.canvas.height / box.height);
    const x = Math.floor(((px - frame.x) / frame.w) * plane.width), y = Math.floor(((py - frame.y) / frame.h) * plane.height);
    if (x < 0 || y < 0 || x >= plane.width || y >= plane.height) return null;
    return voxelAt(plane, x, y, cursor);
  }

  // The middle of a voxel on the page, in CSS pixels.
  placeOf(voxel, geometry) {
    const plane = geometry.planes[this.name], frame = this.frame(plane), box = this.canvas.getBoundingClientRect();
    const [x, y] = pixelOf(plane, voxel), ratio = box.width / this.canvas.width;
    return [box.left + (frame.x + ((x + 0.5) / plane.width) * frame.w) * ratio,
      box.top + (frame.y + ((y + 0.5) / plane.height) * frame.h) * ratio];
  }

  draw(scene) {
    this.fit();
    const { geometry, cursor } = scene, plane = geometry.planes[this.name], frame = this.frame(plane);
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const step = walk(geometry, plane, cursor);
    context.imageSmoothingEnabled = scene.smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.greyOf(scene, plane, step), frame.x, frame.y, frame.w, frame.h);
    context.imageSmoothingEnabled = false;
    if (scene.overlay && scene.labels) {
      const values = this.values ?? scene.labels;
      const scale = Math.max(1, Math.ceil(frame.w / plane.width));
      context.globalAlpha = scene.opacity;
      context.drawImage(this.colourOf(values, scene.palette, plane, step), frame.x, frame.y, frame.w, frame.h);
      context.globalAlpha = 1;
      if (scale >= 2) this.outline(context, values, scene.palette, plane, step, frame);
    }
    this.decorate(context, scene, plane, frame);
  }

  greyOf({ image, window }, plane, step) {
    const { width, height } = plane, pixels = new ImageData(width, height), data = new Uint32Array(pixels.data.buffer);
    const low = (window[0] - image.intercept) / image.slope, high = (window[1] - image.intercept) / image.slope;
    const gain = 255 / Math.max(high - low, 1e-6);
    for (let y = 0, n = 0; y < height; y++) {
      let index = step.start + y * step.down;
      for (let x = 0; x < width; x++, n++, index += step.right) {
        const grey = Math.max(0, Math.min(255, (image.values[index] - low) * gain)) | 0;
        data[n] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
      }
    }
    return put(this.grey, pixels);
  }

  colourOf(values, palette, plane, step) {
    const { width, height } = plane, pixels = new ImageData(width, height), data = new Uint32Array(pixels.data.buffer);
    for (let y = 0, n = 0; y < height; y++) {
      let index = step.start + y * step.down;
      for (let x = 0; x < width; x++, n++, index += step.right) data[n] = palette(values[index]);
    }
    return put(this.colour, pixels);
  }

  outline(context, values, palette, plane, step, frame) {
    const { width, height } = plane, w = frame.w / width, h = frame.h / height, thick = devicePixelRatio || 1;
    const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : values[step.start + x * step.right + y * step.down]);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const value = at(x, y), packed = value && palette(value);
        if (!packed) continue;
        context.fillStyle = `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
        const left = frame.x + x * w, top = frame.y + y * h;
        if (at(x - 1, y) !== value) context.fillRect(left, top, thick, h);
        if (at(x + 1, y) !== value) context.fillRect(left + w - thick, top, thick, h);
        if (at(x, y - 1) !== value) context.fillRect(left, top, w, thick);
        if (at(x, y + 1) !== value) context.fillRect(left, top + h - thick, w, thick);
      }
    }
  }

  decorate(context, scene, plane, frame) {
    const ratio = devicePixelRatio || 1, { width, height } = this.canvas, [x, y] = pixelOf(plane, scene.cursor);
    if (scene.crosshair && !this.values) {
      const cx = frame.x + ((x + 0.5) / plane.width) * frame.w, cy = frame.y + ((y + 0.5) / plane.height) * frame.h;
      const gap = 9 * ratio;
      context.strokeStyle = "rgba(140, 200, 255, .55)";
      context.lineWidth = ratio;
      context.beginPath();
      for (const [a, b, c, d] of [[0, cy, cx - gap, cy], [cx + gap, cy, width, cy], [cx, 0, cx, cy - gap], [cx, cy + gap, cx, height]]) {
        context.moveTo(a, b);
        context.lineTo(c, d);
      }
      context.stroke();
    }
    context.fillStyle = "#d4deea";
    context.strokeStyle = "rgba(0, 0, 0, .75)";
    context.lineWidth = 3 * ratio;
    context.lineJoin = "round";
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    const [left, right, top, bottom] = plane.marks, inset = 8 * ratio;
    const text = (mark, px, py, align, base) => {
      context.textAlign = align;
      context.textBaseline = base;
      context.strokeText(mark, px, py);
      context.fillText(mark, px, py);
    };
    text(left, inset, height / 2, "left", "middle");
    text(right, width - inset, height / 2, "right", "middle");
    text(top, width / 2, inset, "center", "top");
    text(bottom, width / 2, height - inset, "center", "bottom");
    const number = scene.cursor[plane.through.axis] + 1;
    text(`${this.title ?? plane.name}  ${number} / ${plane.depth}`, inset, height - inset, "left", "bottom");
  }
}

const put = (canvas, pixels) => {
  if (canvas.width !== pixels.width || canvas.height !== pixels.height) {
    Object.assign(canvas, { width: pixels.width, height: pixels.height });
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
};
