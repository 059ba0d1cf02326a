import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defaultOptions } from "../../container/options.ts";
import { makeTar } from "../../index/tar.test-kit.ts";
import { imageConfig, TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import { HandlerCode } from "./handler-code.ts";
import { codePath } from "./handler-program.ts";

const archive = gzipSync(
  makeTar([
    { name: "app.py", data: Buffer.from("def handler(): ...\n"), mode: 0o600 },
    { name: "bin/tool", data: Buffer.from("#!/bin/sh\necho tool\n"), mode: 0o4700 },
    { name: "same.py", type: "2", link: "app.py" },
  ]),
);
const runner = { files: { "__main__.py": "", "pkg/deep.py": "" }, path: "/oci-node/runner" };
const codeSha256 = createHash("sha256").update(archive).digest("hex");
/** Stands for a Python: shows what it was started with. */
const fakePython = `#!/bin/sh
echo "program: $0 $*"
echo "user: $(id -u)"
echo "cwd: $(pwd)"
env | while read -r line; do case "$line" in OCI_*|PYTHON*|MINE*) echo "env: $line";; esac; done
echo "code: $(cat same.py)"
echo "tool: $(bin/tool) $(stat -c %a bin/tool)"
[ -f /oci-node/runner/__main__.py ] && [ -f /oci-node/runner/pkg/deep.py ] && echo "runner: there"
touch new 2>/dev/null || echo "code: read-only"
touch /oci-node/runner/new 2>/dev/null || echo "runner: read-only"
`;

let host: TestHost;
let runtime: Runtime;
let code: HandlerCode;
let dir: string;
beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
  dir = join(host.directory, "code");
  const python = join(host.imageRoot, "opt/py/bin/python3");
  await mkdir(join(python, ".."), { recursive: true });
  await writeFile(python, fakePython);
  await chmod(python, 0o755);
  code = await HandlerCode.open({
    dir,
    quotaBytes: 2 ** 20,
    unpackedBytesMax: 2 ** 20,
    runner,
    fetchPiece: async () => ({ data: archive, pieces: 1 }),
  });
  await code.endAdoption(new Set());
});
afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

const handler = { codeSha256, name: "app:handler", concurrency: 3 };
const never = new AbortController().signal;

test("a function of uploaded code runs in the image's own Python, whatever the image's command is, and cannot change the code", async () => {
  const image = imageConfig({
    Entrypoint: ["/init"],
    Cmd: ["serve"],
    Env: ["PATH=/opt/py/bin:/bin", "PYTHONUNBUFFERED=0"],
    User: "ann",
    WorkingDir: "/work",
  });
  const env = { MINE: "1", OCI_NODE_PORT: "1", PYTHONPATH: "lib" };
  const base = host.spec([], { imageConfig: image, env, options: defaultOptions });
  const complete = code.begin({ containerId: base.id, workspaceId: "w" }, handler, never);
  const { output, exit } = await host.runToEnd(runtime, await complete(base, 9000));
  expect(output.trimEnd().split("\n").toSorted()).toEqual([
    "code: def handler(): ...",
    "code: read-only",
    `cwd: ${codePath}`,
    "env: MINE=1",
    `env: OCI_NODE_CODE=${codePath}`,
    "env: OCI_NODE_CONCURRENCY=3",
    "env: OCI_NODE_HANDLER=app:handler",
    "env: OCI_NODE_HOST=0.0.0.0",
    "env: OCI_NODE_PORT=9000",
    "env: PYTHONDONTWRITEBYTECODE=1",
    "env: PYTHONPATH=lib",
    "env: PYTHONUNBUFFERED=1",
    "program: /opt/py/bin/python3 /oci-node/runner/__main__.py",
    "runner: read-only",
    "runner: there",
    "tool: tool 755",
    "user: 1001",
  ]);
  expect(exit.exitCode).toBe(0);
  expect(await readdir(join(dir, "users"))).toEqual([base.id]);
  await code.release(base.id);
  expect(await readdir(join(dir, "users"))).toEqual([]);
});

test("an image without a Python is told so, and a container that ends before its code came keeps none", async () => {
  const base = host.spec([], { options: { ...defaultOptions, workingDirectory: "/tmp" } });
  const complete = code.begin({ containerId: base.id, workspaceId: "w" }, handler, never);
  await expect(complete(base, undefined)).rejects.toMatchObject({ code: "no_python" });
  await code.release(base.id);
  // Not begun to be got when it is let go.
  const early = code.begin({ containerId: "c2", workspaceId: "w" }, handler, never);
  const released = code.release("c2");
  await early(base, 1).catch(() => undefined);
  await released;
  expect(await readdir(join(dir, "users"))).toEqual([]);
  const plain = code.begin({ containerId: "c3", workspaceId: "w" }, undefined, never);
  expect(await plain(base, 1)).toBe(base);
});

test("a worker of another version brings its own runner, and leaves those that containers have", async () => {
  const options = {
    dir,
    quotaBytes: 0,
    unpackedBytesMax: 2 ** 20,
    runner,
    fetchPiece: async () => ({ data: archive, pieces: 1 }),
  };
  await mkdir(join(dir, "runner/earlier"), { recursive: true });
  await code.begin(
    { containerId: "c4", workspaceId: "w" },
    handler,
    never,
  )(host.spec([], { imageConfig: imageConfig({ Env: ["PATH=/opt/py/bin:/bin"] }) }), 1);
  const after = await HandlerCode.open(options);
  await after.endAdoption(new Set(["c4"]));
  expect(await readdir(join(dir, "runner"))).toContain("earlier");
  expect(await readdir(join(dir, "users"))).toEqual(["c4"]);
  await after.release("c4");
  expect(await readdir(join(dir, "trees/w"))).toEqual([]);
  const last = await HandlerCode.open(options);
  await last.endAdoption(new Set());
  expect(await readdir(join(dir, "runner"))).not.toContain("earlier");
});
