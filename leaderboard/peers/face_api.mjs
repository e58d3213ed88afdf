// @vladmandic/face-api's expression net on given crops: `node face_api.mjs PICTURES.npy ANSWERS.npy`.
//
// Runs in the folder that holds node_modules. The net resizes to 112 x 112 and normalises by itself; a grey crop becomes
// three equal channels. Face detection and alignment by landmarks are left out. Its logits are taken before the softmax.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(path.join(process.cwd(), 'package.json'));
const home = path.join(process.cwd(), 'node_modules', '@vladmandic', 'face-api');
const tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');
const faceapi = require(path.join(home, 'dist', 'face-api.node-wasm.js'));
// FACE_EXPRESSION_LABELS of the package, which it does not export.
const labels = ['neutral', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised'];

// The uint8 (N, H, W) array of a .npy file.
function read(file) {
  const bytes = fs.readFileSync(file);
  const long = bytes[6] >= 2;
  const start = long ? 12 : 10;
  const end = start + (long ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
  const header = bytes.toString('latin1', start, end);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(',').map(Number).slice(0, 3);
  if (!header.includes("'|u1'") || header.includes("'fortran_order': True")) throw new Error(`${file}: not uint8 in C order`);
  return { shape, data: bytes.subarray(end) };
}

function write(file, rows, columns, values) {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const padded = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + '\n';
  const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  fs.writeFileSync(file, Buffer.concat([start, Buffer.from(padded, 'latin1'), Buffer.from(Float32Array.from(values).buffer)]));
}

const [pictures, answers] = process.argv.slice(2);
await tf.setBackend('wasm');
await tf.ready();
const net = faceapi.nets.faceExpressionNet;
await net.loadFromDisk(path.join(home, 'model'));
const { shape: [count, height, width], data } = read(pictures);
const begun = performance.now();
const found = [];
for (let first = 0; first < count; first += 16) {
  const batch = [];
  for (let index = first; index < Math.min(first + 16, count); index += 1) {
    const grey = data.subarray(index * height * width, (index + 1) * height * width);
    const rgb = new Float32Array(grey.length * 3).map((_, place) => grey[Math.floor(place / 3)]);
    batch.push(faceapi.tf.tensor3d(rgb, [height, width, 3]));
  }
  const logits = net.runNet(await faceapi.toNetInput(batch));
  found.push(...logits.dataSync());
  faceapi.tf.dispose([logits, ...batch]);
}
const seconds = (performance.now() - begun) / 1000;
write(answers, count, labels.length, found);
const parameters = net.getParamList().concat(net.faceFeatureExtractor.getParamList())
  .reduce((sum, { tensor }) => sum + tensor.size, 0);
fs.writeFileSync(`${answers}.json`, JSON.stringify({
  labels, parameters, seconds, version: require(path.join(home, 'package.json')).version,
  weights: path.join(home, 'model', 'face_expression_model.bin'),
}));
