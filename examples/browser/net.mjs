// A library for wasm32 in a browser, or in Node.js: no Emscripten, no imports, one memory.
//
//     const net = await load(await (await fetch("net.wasm")).arrayBuffer(), 24448);
//     const scores = new Int8Array(net.run(pixels, 10));

const PAGE = 65536;
const ALIGN = 64; // NET_WORKSPACE_ALIGN

// bytes: the .wasm file; workspaceBytes: NET_WORKSPACE_BYTES of the header; name: what the library
// is called. run(input, outputBytes) takes a typed array of the header's NET_INPUT_TYPE and gives a
// copy of the output as an ArrayBuffer; it throws where the library refuses.
export async function load(bytes, workspaceBytes, name = "net") {
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const { memory, __heap_base, ...functions } = instance.exports;
  const workspace = aligned(__heap_base.value);
  const input = aligned(workspace + workspaceBytes);
  const reserve = (end) => {
    const missing = end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  };
  reserve(input);
  return {
    selfTest: () => functions[`${name}_self_test`](workspace) === 0,
    run(values, outputBytes) {
      const output = aligned(input + values.byteLength);
      reserve(output + outputBytes);
      const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      new Uint8Array(memory.buffer).set(raw, input);
      const status = functions[`${name}_run`](input, output, workspace);
      if (status !== 0) throw new Error(`${name}_run: error ${status}`);
      return memory.buffer.slice(output, output + outputBytes);
    },
  };
}

function aligned(address) {
  return Math.ceil(address / ALIGN) * ALIGN;
}
