import { afterAll, beforeAll, expect, test } from "bun:test";
import { defaultOptions } from "../../container/options.ts";
import type { RunningContainer } from "../container.ts";
import { TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  const left = await host.leftovers();
  await host.close();
  expect(left).toEqual([]);
});

const start = (script: string, kind: { terminal: boolean; stdin: boolean }): Promise<RunningContainer> =>
  runtime.start(
    host.spec(["sh", "-c", script], { options: { ...defaultOptions, ...kind } }),
    new AbortController().signal,
  );

/** What a container writes, as it comes. */
class Shown {
  text = "";
  readonly ended: Promise<void>;
  #wake: () => void = () => undefined;

  constructor(id: string) {
    this.ended = this.#read(id);
  }

  async has(wanted: string): Promise<void> {
    const late = AbortSignal.timeout(10_000);
    while (!this.text.includes(wanted)) {
      if (late.aborted)
        throw new Error(`${JSON.stringify(wanted)} did not come, but ${JSON.stringify(this.text)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        late.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  async #read(id: string): Promise<void> {
    for await (const { data } of runtime.logs(id, { follow: true })) {
      this.text += Buffer.from(data).toString();
      this.#wake();
    }
  }
}

test("standard input stays open over those who come and go, and a restart, until it is ended", async () => {
  const container = await start('while read -r x; do echo "<$x>"; done; echo end; exit 7', {
    terminal: false,
    stdin: true,
  });
  const shown = new Shown(container.id);
  const first = container.attach();
  await first.write(Buffer.from("one\ntw"));
  await shown.has("<one>");
  await first.close();
  // As the next process of the worker's finds it.
  const later = await host.runtime();
  const [adopted] = await later.adopt();
  const second = adopted?.attach();
  await second?.write(Buffer.from("o\n"));
  await shown.has("<two>");
  const third = container.attach();
  await Promise.all([second?.write(Buffer.from("three\n")), third.write(Buffer.from("four\n"))]);
  await shown.has("<three>");
  await shown.has("<four>");
  await second?.close();
  await third.write(Buffer.from("last"));
  await third.closeInput();
  expect(await container.exited).toMatchObject({ exitCode: 7 });
  await shown.ended;
  expect(shown.text).toEndWith(">\nend\n");
  await container.cleanup();
  await container.removeLog();
});

test("5 MB go to a container unchanged, at the pace at which it reads", async () => {
  const container = await start("sleep 0.2; sha256sum", { terminal: false, stdin: true });
  const shown = new Shown(container.id);
  const data = crypto.getRandomValues(new Uint8Array(64 * 1024));
  const hash = new Bun.CryptoHasher("sha256");
  const attachment = container.attach();
  for (let count = 0; count < 80; count += 1) {
    hash.update(data);
    await attachment.write(data);
  }
  await attachment.closeInput();
  await container.exited;
  await shown.ended;
  expect(shown.text).toStartWith(hash.digest("hex"));
  await container.cleanup();
  await container.removeLog();
});

test("a terminal: its size, its keys, the end of input; and none who attaches without standard input", async () => {
  const container = await start(
    "echo $TERM; trap 'stty size' WINCH; trap 'echo broken' INT; echo go; until [ \"$x\" = word ]; do read -r x; done; cat; exit 4",
    { terminal: true, stdin: true },
  );
  const shown = new Shown(container.id);
  await shown.has("xterm\r\ngo\r\n");
  const attachment = container.attach();
  await attachment.resize({ rows: 41, columns: 111 });
  await shown.has("41 111");
  await attachment.write(Buffer.from("\x03"));
  await shown.has("broken");
  await attachment.write(Buffer.from("word\rechoed"));
  await shown.has("word\r\nechoed");
  await attachment.write(Buffer.from("\r"));
  await attachment.closeInput();
  expect(await container.exited).toMatchObject({ exitCode: 4 });
  await attachment.close();
  await container.cleanup();
  await container.removeLog();
  const deaf = await start("read x; echo none; exec sleep 1000", { terminal: false, stdin: false });
  const words = await deaf
    .attach()
    .write(new Uint8Array(1))
    .catch((error: unknown) => error);
  expect(words).toMatchObject({ code: "bad_config", next: "Run it with --interactive to have one." });
  await deaf.cleanup();
  await deaf.removeLog();
  expect(() => deaf.attach()).toThrow("does not run");
});
