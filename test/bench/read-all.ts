import { run } from "../../src/std/spawn.ts";
import { pipImage } from "../kit/pip-image.ts";
import { Eager } from "./eager.ts";
import { type Benchmark, figure, median, samples } from "./figure.ts";
import { LazyTree } from "./mount.ts";

/** Mounting an indexed image and reading every file of it once, nothing cached, against pulling and unpacking all of it. */
export const readAll: Benchmark = {
  name: "read-all",
  about: "mount and read every file of the image once, cold, against a parallel pull and unpack of all of it",
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const tree = new LazyTree(stage, "pip");
    await tree.index(reference);
    const eager = new Eager(stage, reference, ["true"]);
    const ours: number[] = [];
    const count = rounds(5);
    for (let round = 1; round <= count; round++) {
      await tree.forget();
      const mounting = await tree.up(reference);
      const started = performance.now();
      const all = 'find "$1" -type f -print0 | xargs -0 cat > /dev/null';
      await run(["sh", "-c", all, "sh", tree.root], { timeoutMs: 600_000 });
      ours.push(mounting + (performance.now() - started) / 1000);
      await tree.down();
      await eager.round("faster");
      tell(
        `${round} of ${count}: ${ours.at(-1)?.toFixed(2)} s against ${eager.seconds("unpacked").at(-1)?.toFixed(2)} s`,
      );
    }
    const theirs = eager.seconds("unpacked");
    return [
      figure("read-all/to-pull-and-unpack", median(ours) / median(theirs), "", 1, {
        from: [ours, theirs],
        detail: { oursSeconds: samples(ours), eagerSeconds: samples(theirs), eager: eager.faster },
      }),
    ];
  },
};
