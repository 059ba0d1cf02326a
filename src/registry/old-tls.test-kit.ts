import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment } from "../std/spawn.ts";
import { type Certificate, makeCertificate } from "./certificate.test-kit.ts";

export interface OldTlsServer {
  readonly port: number;
  readonly certificate: Certificate;
  stop(): Promise<void>;
}

/** A server of HTTPS (OpenSSL's own) that speaks one version of TLS only: `tls1_1`, `tls1_2`. */
export async function startTlsServerOf(version: string): Promise<OldTlsServer> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-old-tls-"));
  const certificate = await makeCertificate("127.0.0.1");
  await writeFile(join(dir, "key"), certificate.key);
  await writeFile(join(dir, "crt"), certificate.certificate);
  const port = await freePort();
  const server = Bun.spawn(
    ["openssl", "s_server", "-accept", `127.0.0.1:${port}`, "-key", "key", "-cert", "crt", "-www"].concat(
      // What is forbidden by OpenSSL's own standard, so that nothing but we refuse it.
      [`-${version}`, "-cipher", "ALL:@SECLEVEL=0"],
    ),
    { cwd: dir, env: cleanEnvironment, stdin: "pipe", stdout: "pipe", stderr: "ignore" },
  );
  let said = "";
  for await (const piece of server.stdout.pipeThrough(new TextDecoderStream())) {
    said += piece;
    if (said.includes("ACCEPT")) break;
  }
  const stop = async () => {
    server.kill();
    await server.exited;
    await rm(dir, { recursive: true });
  };
  return { port, certificate, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
