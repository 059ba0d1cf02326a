import { afterAll, beforeAll, expect, test } from "bun:test";
import { busyboxImage } from "../kit/busybox-image.ts";
import { Moto } from "../kit/moto.ts";
import { pythonImage } from "../kit/python-image.ts";
import { PythonUser } from "../kit/python-user.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { ecrRow } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";

const host = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
/** As it stands in the first lines that anybody reads of this project. */
const example = `from oci_node import Image, endpoint
image = Image(base_image="${host}/my-image:latest",
              base_image_creds=["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
@endpoint(image=image, cpu=1, memory="512Mi")
def handler(): return {"status": "success"}
`;
/** With what stands beside it in the container. */
const secondAnswer = `{"status": "second", "files": sorted(__import__("os").listdir())}`;
const others = `
import asyncio
from oci_node import Image, endpoint
image = Image.from_registry("${host}/my-image:latest", creds={"AWS_ACCESS_KEY_ID": "AKIAQUIRKTEST0000001",
    "AWS_SECRET_ACCESS_KEY": open("key.txt").read().strip() if __import__("os").path.exists("key.txt") else "x"})

@endpoint(image=image, public=True, concurrency=4, memory="256Mi", cpu=0.5, env={"WHO": "me"}, secrets=["API_KEY"])
async def wait(n: int = 0):
    import os
    await asyncio.sleep(0)
    if n > 100: raise ValueError("too many: %d" % n)
    for i in range(n):
        yield {"i": i, "who": os.environ["WHO"], "key": len(os.environ["API_KEY"])}
`;

let net: QuirkNet;
let moto: Moto;
let row: ReturnType<typeof ecrRow>;
let world: QuirkWorld;
let user: PythonUser;

beforeAll(async () => {
  net = new QuirkNet();
  moto = await Moto.start();
  row = ecrRow(net, moto);
  row.registry.add("my-image", "latest", await pythonImage());
  row.registry.add("no-python", "latest", await busyboxImage());
  world = await QuirkWorld.start(net);
  user = await PythonUser.start(world.node);
  await user.write("app.py", example);
}, 240_000);
afterAll(async () => {
  await user?.stop();
  await world?.stop();
  await moto?.stop();
}, 60_000);

async function call(name: string, init: RequestInit & { token?: string | false } = {}): Promise<Response> {
  const token = init.token ?? (await user.token());
  const headers = new Headers(init.headers);
  if (token !== false) headers.set("authorization", `Bearer ${token}`);
  return await fetch(`${world.node.url}/endpoint/${name}`, { ...init, headers });
}

test("a variable that the example names and that is not set is told before anything is sent", async () => {
  const { AWS_SECRET_ACCESS_KEY: _, ...env } = row.env;
  const { code, stdout, stderr } = await user.command(["deploy", "app.py:handler"], env);
  expect([code, stdout, stderr]).toEqual([
    1,
    "",
    "oci-node-py: base_image_creds names AWS_SECRET_ACCESS_KEY, which is not set in the environment\n" +
      "  Set AWS_SECRET_ACCESS_KEY, or leave it out of base_image_creds.\n",
  ]);
  expect(net.seen).toEqual([]);
});

test("the example, as it is written, answers over HTTP", async () => {
  const { code, stdout, stderr } = await user.command(["deploy", "app.py:handler"], row.env);
  expect([code, stderr.match(/^oci-node-py:.*/m)]).toEqual([0, null]);
  expect(stderr).toMatch(/^code: 1 file, \d+ B, uploading$/m);
  expect(stderr).toMatch(/^sha256:\w+: [\d.]+ MiB$/m);
  expect(stderr).toMatch(/^endpoint: handler, version 1, answers$/m);
  expect(stdout.split("\n")[0]).toBe(`${world.node.url}/endpoint/handler`);
  expect(stdout).toContain("curl -H");

  const answer = await call("handler");
  expect([answer.status, answer.headers.get("content-type"), await answer.text()]).toEqual([
    200,
    "application/json",
    '{"status": "success"}',
  ]);
  expect((await call("handler", { token: false })).status).toBe(401);
  expect(await user.program("import app; print(app.handler(), app.handler.remote())")).toBe(
    "{'status': 'success'} {'status': 'success'}\n",
  );
  for (const line of [
    "creating credential secret",
    "added OCI credentials to container request",
    "using credential provider from request for OCI image mount",
  ])
    expect(world.node.log).toContain(line);
});

test("nothing that has not changed is sent again; what is ignored is no change", async () => {
  await user.write("data/big.csv", "1,2,3");
  await user.write(".ocinodeignore", "data/\n");
  await user.write(".env", "SECRET=planted");
  const again = await user.command(["deploy", "app.py:handler"], row.env);
  expect([again.code, again.stderr]).toEqual([0, expect.stringContaining("there already")]);
  expect(again.stderr).toContain("endpoint: handler, version 1, is as it was");
  await user.write("app.py", example.replace('{"status": "success"}', secondAnswer));
  const deploy = "import app; print(app.handler.deploy(quiet=True))";
  expect(await user.program(deploy, { env: row.env })).toBe(
    `Deployed(name='handler', url='${world.node.url}/endpoint/handler', version=2, public=False, changed=True)\n`,
  );
  expect(await (await call("handler")).json()).toEqual({ status: "second", files: ["app.py"] });
});

test("an asynchronous generator answers line by line, its traceback is for the workspace's own", async () => {
  await user.write("others/stream.py", others);
  await user.write("others/key.txt", row.env["AWS_SECRET_ACCESS_KEY"] ?? "");
  await user.write("others/.ocinodeignore", "key.txt\n");
  await world.node.ok(["secret", "create", "--opaque", "API_KEY"], { stdin: "planted-value" });
  const deployed = await user.command(["deploy", "stream.py:wait"], {}, "others");
  expect([deployed.code, deployed.stderr.match(/^oci-node-py:.*/m)]).toEqual([0, null]);
  const remote = "import stream; print(list(stream.wait.remote(n=2)))";
  expect(await user.program(remote, { folder: "others" })).toBe(
    "[{'i': 0, 'who': 'me', 'key': 13}, {'i': 1, 'who': 'me', 'key': 13}]\n",
  );
  const called = await user.command(["call", "wait", '{"n": 1}']);
  expect([called.code, called.stdout]).toEqual([0, '{"i": 0, "who": "me", "key": 13}\n']);
  const many = { method: "POST", body: '{"n": 101}', headers: { "content-type": "application/json" } };
  const own = await call("wait", many);
  const told = (await own.json()) as { error: Record<string, string> };
  expect([own.status, told.error["type"], told.error["message"]]).toEqual([
    500,
    "ValueError",
    "too many: 101",
  ]);
  expect(told.error["traceback"]).toContain('/oci-node/code/stream.py", line');
  const stranger = await call("wait", { ...many, token: false });
  const hidden = (await stranger.json()) as { error: Record<string, string> };
  expect([stranger.status, Object.keys(hidden.error).toSorted()]).toEqual([500, ["code", "id", "message"]]);
  await world.node.waitForLog(new RegExp(`"id":"${hidden.error["id"]}".*handler_failed`));
  const raised = `
import stream, oci_node
try: list(stream.wait.remote(n=101))
except oci_node.RemoteError as error: print(error.type, error.message, "stream.py" in error.traceback)
`;
  expect(await user.program(raised, { folder: "others" })).toBe("ValueError too many: 101 True\n");
});

test("an image without Python, and code that cannot be imported, are told; the version before goes on", async () => {
  // A container of the version before has most of the machine.
  const small = example.replace("cpu=1", "cpu=0.1");
  await user.write("bare/app.py", small.replace("my-image", "no-python"));
  const bare = await user.command(["deploy", "app.py:handler", "--name", "bare"], row.env, "bare");
  expect([bare.code, bare.stdout]).toEqual([1, ""]);
  expect(bare.stderr).toMatch(/oci-node-py: bare, version 1, did not come up: .*no Python/);

  await user.write(
    "app.py",
    `${small}import os\nif "OCI_NODE_HANDLER" in os.environ: import absent_package\n`,
  );
  const broken = await user.command(["deploy", "app.py:handler"], row.env);
  expect([broken.code, broken.stdout]).toEqual([1, ""]);
  expect(broken.stderr).toContain("oci-node-py: handler, version 3, did not come up: ");
  expect(broken.stderr).toContain("No module named 'absent_package'");
  expect(broken.stderr).toContain("Version 2 goes on.");
  expect(await (await call("handler")).json()).toMatchObject({ status: "second" });
});

test("the client of TypeScript builds, runs and prints", async () => {
  const script = "src/sdk/typescript/example.ts";
  const keys = Object.keys(row.env).join();
  const child = Bun.spawn(
    [process.execPath, script, `${host}/my-image:latest`, keys, "python3", "-c", "print(6 * 7); exit(3)"],
    {
      cwd: new URL("../..", import.meta.url).pathname,
      env: {
        ...row.env,
        OCI_NODE_URL: world.node.url,
        OCI_NODE_TOKEN: await user.token(),
        HOME: "/nonexistent",
      },
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const stdout = await new Response(child.stdout).text();
  expect([await child.exited, stdout]).toEqual([3, "42\n"]);
});

test("no credential went elsewhere than it is for, and none is in the node's log", () => {
  expect([...net.leaks(), ...net.strays()]).toEqual([]);
  for (const secret of [row.env["AWS_SECRET_ACCESS_KEY"] ?? "", "planted-value"])
    expect(world.node.log).not.toContain(secret);
});
