// Times a library for wasm32 and onnxruntime-web on ONNX files, in turns, one thread each.
//
//     node browser.mjs JOB.json      prints {"runner": [ms, ...], ...}

import fs from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";

const job = JSON.parse(fs.readFileSync(process.argv[2]));
const { load } = await import(pathToFileURL(job.loader));
const ort = await import(pathToFileURL(path.join(job.modules, "onnxruntime-web/dist/ort.wasm.min.mjs")));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const net = await load(fs.readFileSync(job.library), job.workspace);
if (!net.selfTest()) throw new Error("the library's self test fails");
const count = job.shape.reduce((a, b) => a * b);
const bytes = Uint8Array.from({ length: job.inputBytes }, (_, i) => (i * 151) % 256);
const reals = Float32Array.from({ length: count }, (_, i) => ((i * 151) % 256) / 128 - 1);

const runners = { irc: async () => net.run(bytes, job.outputBytes) };
for (const [name, file] of Object.entries(job.files)) {
  const session = await ort.InferenceSession.create(fs.readFileSync(file), {
    executionProviders: ["wasm"], graphOptimizationLevel: "all",
  });
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", reals, job.shape) };
  runners[name] = () => session.run(feeds);
}

const times = Object.fromEntries(Object.keys(runners).map((name) => [name, []]));
for (const run of Object.values(runners)) for (let i = 0; i < job.warm; i++) await run();
for (let round = 0; round < job.rounds; round++) {
  for (const [name, run] of Object.entries(runners)) {
    const start = performance.now();
    await run();
    times[name].push(performance.now() - start);
  }
}
console.log(JSON.stringify(times));
