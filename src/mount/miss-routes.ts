import type { LayerBlob } from "../native/blob.ts";
import { Engine } from "../native/engine.ts";
import type { Fetcher } from "./fetcher.ts";
import type { LayerFetch } from "./layer-fetch.ts";

interface Route {
  readonly fetcher: Fetcher;
  readonly layer: LayerFetch;
}

/** The engine is one per process and so is its doorbell: this is who answers for which blob. */
const routes = new Map<LayerBlob, Route>();
let listening = false;

/** From now on, misses of these layers go to their mount's fetcher. Returns how to end that. */
export function routeMisses(fetcher: Fetcher, layers: readonly LayerFetch[]): () => void {
  for (const layer of layers) routes.set(layer.blob, { fetcher, layer });
  if (!listening) {
    listening = true;
    const engine = Engine.get();
    engine.onMiss((blob, span) => {
      const route = routes.get(blob);
      if (route === undefined) engine.fail(blob, span, "EIO");
      else route.fetcher.miss(route.layer, span);
    });
  }
  return () => {
    for (const layer of layers) routes.delete(layer.blob);
  };
}
