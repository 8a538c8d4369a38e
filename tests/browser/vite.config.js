import wasm from "vite-plugin-wasm";

export default {
  root: new URL("page", import.meta.url).pathname,
  plugins: [wasm()],
  // zenoh-ts has its key expressions as a WebAssembly module.
  build: { target: "esnext", minify: false },
};
