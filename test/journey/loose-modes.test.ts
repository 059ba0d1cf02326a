import { expect, test } from "bun:test";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeCertificate } from "../../src/registry/certificate.test-kit.ts";
import { run } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import { type CliResult, runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { inScratch } from "../kit/world.ts";

/** Refused with the file's name and a command; done as told it is not refused for that any more. */
async function refusedUntilTold(
  path: string,
  holds: string,
  attempt: () => Promise<CliResult>,
): Promise<void> {
  await chmod(path, 0o644);
  const refused = await attempt();
  expect([refused.code, refused.stdout]).toEqual([1, ""]);
  expect(refused.stderr).toContain(`${path} holds ${holds}, and others can read it`);
  const command = /^ {2}Run: (chmod .*)$/m.exec(refused.stderr)?.[1] ?? "";
  await run(command.split(" "));
  expect((await attempt()).stderr).not.toContain("others can");
}

test("a command reads no token and no credentials that others can read", async () => {
  const command = await product();
  await inScratch(async (dir) => {
    const folder = join(dir, "xdg/oci-node");
    await mkdir(folder, { recursive: true });
    const [context, creds] = [join(folder, "context.json"), join(dir, "creds.env")];
    await writeFile(context, JSON.stringify({ url: "http://127.0.0.1:1", token: "ocn_x" }), { mode: 0o600 });
    await writeFile(creds, "USERNAME=a\nPASSWORD=b\n");
    const env = { HOME: dir, XDG_CONFIG_HOME: join(dir, "xdg") };
    const attempt = (...args: string[]) => runCli(command, args, { env });
    await refusedUntilTold(context, "tokens", () => attempt("ps"));
    const creating = ["secret", "create", "registry.test", "--creds-file"];
    await refusedUntilTold(creds, "credentials", () => attempt(...creating, creds));
    // A pipe has no other readers, whatever its mode is.
    const piped = ["bash", "-c", '"$@" --creds-file <(cat creds.env)', "bash", ...command];
    const { stderr } = await runCli(piped, ["secret", "create", "registry.test"], { env, cwd: dir });
    expect(stderr).toContain("the node does not answer");
  });
});

test("a node starts with no key and no token that others can read", async () => {
  const command = await product();
  await inScratch(async (dir) => {
    const data = join(dir, "data");
    const config = join(dir, "config.toml");
    const [certificate, key] = [join(dir, "tls.crt"), join(dir, "tls.key")];
    const made = await makeCertificate("127.0.0.1");
    await writeFile(certificate, made.certificate);
    await writeFile(key, made.key, { mode: 0o600 });
    const lines = [
      `data_dir = "${data}"`,
      'gateway.listen = "127.0.0.1:0"',
      'scheduler.listen = "127.0.0.1:0"',
      `gateway.tls_cert_file = "${certificate}"`,
      `gateway.tls_key_file = "${key}"`,
      'worker.scheduler_url = "https://127.0.0.1:1"',
    ];
    await writeFile(config, `${lines.join("\n")}\n`, { mode: 0o600 });
    const env = { XDG_CONFIG_HOME: join(dir, "xdg") };
    /** Starts roles, ends them once they are ready. */
    const attempt = async (roles: string): Promise<CliResult> => {
      const program = new Program([...command, `--role=${roles}`, "--config", config], { env });
      await Promise.race([program.waitFor(/^ready /m, 60_000).catch(() => undefined), program.child.exited]);
      const ready = /^ready /m.test(program.output);
      const code = ready ? await program.stop() : await program.child.exited;
      const output = await new Promise<string>((resolve) => setImmediate(() => resolve(program.output)));
      return { code, stdout: ready ? "ready" : "", stderr: output, elapsedMs: 0, memoryBytes: 0 };
    };
    try {
      expect((await attempt("gateway,scheduler")).code).toBe(0);
      await refusedUntilTold(key, "a private key", () => attempt("gateway"));
      await refusedUntilTold(join(data, "admin-token"), "the administrator's token", () =>
        attempt("gateway"),
      );
      const token = "the token that lets workers join";
      await refusedUntilTold(join(data, "join-token"), token, () => attempt("scheduler"));
    } finally {
      await sweep(data);
    }
  });
}, 120_000);
