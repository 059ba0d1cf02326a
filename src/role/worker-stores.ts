import { join } from "node:path";
import type { Config } from "../config.ts";
import { IndexStore } from "../index/store.ts";
import { LazyMounts } from "../mount/lazy-mount.ts";
import { Cgroups } from "../runtime/cgroups.ts";
import { defaultCgroupParent, monitorsOf } from "../runtime/host.ts";

/** What a worker keeps on disk. */
export interface WorkerStores {
  readonly mounts: LazyMounts;
  readonly index: IndexStore;
}

/**
 * Takes over what the process before this one mounted and served. Readers in its containers wait for this, so nothing
 * comes before it.
 */
export async function openWorkerStores(config: Config): Promise<WorkerStores> {
  const index = await IndexStore.open(config.indexDir);
  const mounts = await LazyMounts.create({
    stateDir: join(config.stateDir, "mounts"),
    cacheDir: config.cacheDir,
    cacheQuotaBytes: config.worker.cache_quota,
    backgroundBytesPerSecond: config.worker.background_bandwidth,
    verifyCache: config.worker.verify_cache,
    transport: config.worker.mount_transport,
    limits: config.worker.read_deadline === undefined ? {} : { deadlineMs: config.worker.read_deadline },
    handover: {
      patienceMs: config.worker.holder_timeout,
      openIndex: (manifestDigest, sha256) => index.openImage(manifestDigest, sha256, { mounted: true }),
      onStarted: async (pid) => (await Cgroups.detect()).moveMonitor(monitorsOf(defaultCgroupParent), pid),
    },
  });
  return { mounts, index };
}
