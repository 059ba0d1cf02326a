import type { GetLazyStatusResponse } from "../gen/oci_node/v1/image_service_pb.ts";
import type { LayerCacheStatus, WorkerLazyStatus } from "../gen/oci_node/v1/lazy_status_pb.ts";
import { formatSize } from "../std/size.ts";
import { ago, printLine, printTable } from "./output.ts";
import { dateOf, imageShape } from "./shape.ts";

/** What `image inspect --lazy --json` shows. */
export function lazyStatusShape({ image, workers, traces }: GetLazyStatusResponse) {
  return {
    ...(image === undefined ? {} : imageShape(image)),
    workers: workers.map((worker) => ({
      id: worker.workerId,
      name: worker.workerName,
      error: worker.error || null,
      layers: worker.layers.map((layer) => ({
        digest: layer.digest,
        sizeBytes: Number(layer.sizeBytes),
        spansTotal: layer.spansTotal,
        spansCached: layer.spansCached,
        cachedBytes: Number(layer.cachedBytes),
        complete: isComplete(layer),
        elsewhere: layer.elsewhere,
      })),
      mounts: worker.mounts.map((mount) => ({
        transport: mount.transport,
        served: mount.served,
        users: mount.users,
        fetchedBytes: Number(mount.fetchedBytes),
        requests: Number(mount.requests),
      })),
    })),
    traces: traces.map((trace) => ({
      name: trace.name,
      program: trace.program || null,
      starts: trace.starts,
      ranges: trace.ranges,
      compressedBytes: Number(trace.compressedBytes),
      updatedAt: dateOf(trace.updatedAt)?.toISOString() ?? null,
    })),
  };
}

/** The same as tables: the workers with their layers and mounts, then the traces. */
export function printLazyStatus({ image, workers, traces }: GetLazyStatusResponse): void {
  if (image !== undefined) printLine(`${image.reference}  ${image.manifestDigest}`);
  for (const worker of workers) printWorker(worker);
  if (workers.length === 0) printLine("\nthere is no worker");
  printLine("");
  if (traces.length === 0) {
    printLine("no start of it was traced");
    return;
  }
  printTable(
    ["TRACE", "PROGRAM", "STARTS", "RANGES", "TO FETCH", "UPDATED"],
    traces.map((trace) => [
      trace.name,
      trace.program || "(its own)",
      String(trace.starts),
      String(trace.ranges),
      formatSize(Number(trace.compressedBytes)),
      `${ago(dateOf(trace.updatedAt))} ago`,
    ]),
  );
}

function printWorker({ workerName, error, layers, mounts }: WorkerLazyStatus): void {
  printLine(`\nworker ${workerName}${error === "" ? "" : `: ${error}`}`);
  if (error !== "") return;
  printTable(
    ["LAYER", "SIZE", "CACHED", "SPANS", "ON DISK"],
    layers.map((layer) => [
      layer.digest.slice(0, 19),
      formatSize(Number(layer.sizeBytes)),
      cachedShare(layer),
      `${layer.spansCached}/${layer.spansTotal}`,
      formatSize(Number(layer.cachedBytes)),
    ]),
  );
  for (const { transport, users, fetchedBytes, requests } of mounts)
    printLine(
      `mounted (${transport}) for ${users} container${users === 1 ? "" : "s"}: ` +
        `${formatSize(Number(fetchedBytes))} fetched in ${requests} requests`,
    );
  if (mounts.length === 0) printLine("not mounted");
}

function isComplete({ spansCached, spansTotal, elsewhere }: LayerCacheStatus): boolean {
  return !elsewhere && spansCached === spansTotal;
}

function cachedShare(layer: LayerCacheStatus): string {
  if (layer.elsewhere) return "in use elsewhere";
  if (isComplete(layer)) return "complete";
  return `${Math.floor((100 * layer.spansCached) / layer.spansTotal)} %`;
}
