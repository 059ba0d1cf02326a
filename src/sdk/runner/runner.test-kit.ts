import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { cleanEnvironment } from "../../std/spawn.ts";
import { runnerFiles } from "./files.ts";

/** The runner on this machine's own Python, with a module `app` of the given text. */
export class Runner {
  readonly #dir: string;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  #stderr = "";
  #listeners: (() => void)[] = [];
  /** `http://127.0.0.1:PORT` */
  url = "";

  private constructor(dir: string, child: Bun.Subprocess<"ignore", "pipe", "pipe">) {
    this.#dir = dir;
    this.#child = child;
  }

  /** Begins it without waiting until it listens. */
  static async spawn(
    files: Record<string, string>,
    env: Record<string, string> = {},
    python = "python3",
  ): Promise<Runner> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-runner-"));
    const write = async (path: string, text: string) => {
      await mkdir(dirname(join(dir, path)), { recursive: true });
      await writeFile(join(dir, path), text);
    };
    for (const [path, text] of Object.entries(runnerFiles)) await write(`runner/${path}`, text);
    for (const [path, text] of Object.entries(files)) await write(`code/${path}`, text);
    const child = Bun.spawn([python, join(dir, "runner/__main__.py")], {
      cwd: join(dir, "code"),
      env: {
        ...cleanEnvironment,
        PYTHONUNBUFFERED: "1",
        PYTHONDONTWRITEBYTECODE: "1",
        OCI_NODE_CODE: join(dir, "code"),
        OCI_NODE_HANDLER: "app:handler",
        OCI_NODE_HOST: "127.0.0.1",
        OCI_NODE_PORT: "0",
        ...env,
      },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const runner = new Runner(dir, child);
    void runner.#collect(child.stdout);
    void runner.#collect(child.stderr);
    return runner;
  }

  static async start(app: string, env: Record<string, string> = {}): Promise<Runner> {
    const runner = await Runner.spawn({ "app.py": app }, env);
    const [, port] = await runner.says(/listens on port (\d+)/);
    runner.url = `http://127.0.0.1:${port}`;
    return runner;
  }

  /** All that it wrote so far. */
  get output(): string {
    return this.#stderr;
  }

  async says(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const match = this.#stderr.match(pattern);
      if (match !== null) return match;
      if (this.#child.exitCode !== null) throw new Error(`the runner ended: ${this.#stderr}`);
      await new Promise<void>((resolve) => this.#listeners.push(resolve));
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  ended(): Promise<number> {
    return this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.#stderr += decoder.decode(chunk, { stream: true });
      this.#wake();
    }
    await this.#child.exited;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#listeners.splice(0)) resolve();
  }
}

/** A connection whose bytes are said one by one. */
export class Connection {
  readonly #socket: Socket;
  /** All that was answered, once the other end has closed it. */
  readonly closed: Promise<string>;
  #answer = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      this.#answer += text;
    });
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.on("close", () => resolve(this.#answer)));
  }

  static async open(url: string): Promise<Connection> {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    await once(socket, "connect");
    return new Connection(socket);
  }

  send(bytes: string): void {
    this.#socket.write(bytes, "latin1");
  }

  async says(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.#answer)) await once(this.#socket, "data");
  }
}
