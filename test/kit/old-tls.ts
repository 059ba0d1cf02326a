import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { Program } from "./program.ts";

const weakest = ["-cipher", "ALL:@SECLEVEL=0"];

/** A TLS server that speaks one version and nothing newer, by OpenSSL, which ours is not. */
export class OldTlsServer {
  readonly port: number;
  /** PEM file of the authority that its certificate comes from: itself. */
  readonly caFile: string;
  readonly #dir: string;
  readonly #program: Program;

  private constructor(port: number, dir: string, program: Program) {
    this.port = port;
    this.#dir = dir;
    this.caFile = join(dir, "cert.pem");
    this.#program = program;
  }

  /** @param version `tls1_1`, `tls1_2`. @param name in its certificate */
  static async start(version: "tls1_1" | "tls1_2", name: string): Promise<OldTlsServer> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-old-tls-"));
    const [cert, key] = [join(dir, "cert.pem"), join(dir, "key.pem")];
    const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name},IP:127.0.0.1`];
    const made = ["-nodes", "-newkey", "rsa:2048", "-days", "2", "-keyout", key, "-out", cert];
    await run(["openssl", "req", "-x509", ...made, ...subject]);
    const files = ["-cert", cert, "-key", key];
    const program = new Program(
      ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", `-${version}`, ...weakest, ...files],
      {},
    );
    const [, port] = await program.waitFor(/ACCEPT \S+:(\d+)/);
    return new OldTlsServer(Number(port), dir, program);
  }

  /** Whether a client of OpenSSL's, made to speak the version, is taken: else a refusal would say nothing. */
  async takesItsOwn(version: string): Promise<boolean> {
    const script = join(this.#dir, "request");
    await writeFile(script, "GET / HTTP/1.0\r\n\r\n");
    const connect = ["s_client", "-connect", `127.0.0.1:${this.port}`, `-${version}`, ...weakest];
    const child = Bun.spawn(["openssl", ...connect, "-ign_eof"], {
      stdin: Bun.file(script),
      stdout: "pipe",
      stderr: "ignore",
    });
    return (await new Response(child.stdout).text()).includes("HTTP/1.0 200");
  }

  async stop(): Promise<void> {
    await this.#program.stop("SIGKILL");
    await rm(this.#dir, { recursive: true });
  }
}
