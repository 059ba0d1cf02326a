/**
 * A process for tests to kill: serves a layer over FUSE below a folder, its connection left with a holder, and prints
 * `ready PID-OF-HOLDER`, then `miss SPAN` for what it never answers. Arguments: folder, holder's patience in ms.
 */
import { join } from "node:path";
import { LayerBlob } from "./blob.ts";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import { HolderConnection } from "./holder.ts";

const [dir = "", patience = "0"] = process.argv.slice(2);
const engine = Engine.get();
engine.onMiss((_, span) => process.stdout.write(`miss ${span}\n`));
const blob = LayerBlob.open({
  spanPath: join(dir, "layer.spans"),
  cachePath: join(dir, "layer.blob"),
  mapPath: join(dir, "layer.map"),
});
const holder = await HolderConnection.start({ folder: dir, patienceMs: Number(patience) });
const server = FuseBlobServer.mount({ mountpoint: join(dir, "mount"), blobs: [blob] });
await server.hold(holder, "k".repeat(32));
process.stdout.write(`ready ${holder.pid}\n`);
