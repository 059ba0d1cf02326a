import { describe, expect, test } from "bun:test";
import { run } from "../../std/spawn.ts";
import { Connection, Runner } from "./runner.test-kit.ts";

const json = { "content-type": "application/json" };
const call = { "content-type": "application/vnd.oci-node.call+json" };

async function told(response: Response): Promise<unknown[]> {
  return [response.status, response.headers.get("content-type"), await response.text()];
}

describe("arguments", () => {
  test("come from the query, from a JSON object, from a form, from a call; what does not fit is told", async () => {
    await using runner = await Runner.start(`
from oci_node import Image, endpoint
image = Image(base_image="registry.example/app", base_image_creds=["NOT_THERE"])

@endpoint(image=image, cpu=1, memory="512Mi")
def handler(name, times=1, *more):
    return {"name": name, "times": times, "more": more}
`);
    const post = (body: string, headers: Record<string, string>, query = "") =>
      fetch(`${runner.url}/${query}`, { method: "POST", body, headers }).then(told);
    const answer = (value: object) => [200, "application/json", pythonJson(value)];
    const get = await fetch(`${runner.url}/any/path?name=a%20b&times=2`);
    expect(await told(get)).toEqual(answer({ name: "a b", times: "2", more: [] }));
    expect(await post('{"name":"ü","times":3}', json)).toEqual(answer({ name: "ü", times: 3, more: [] }));
    expect(await post('{"times":3}', json, "?name=q")).toEqual(answer({ name: "q", times: 3, more: [] }));
    const form = { "content-type": "application/x-www-form-urlencoded" };
    expect(await post("name=a+b", form)).toEqual(answer({ name: "a b", times: 1, more: [] }));
    expect(await post('{"name":"curl -d"}', form)).toEqual(answer({ name: "curl -d", times: 1, more: [] }));
    expect(await post('{"args":["a",2,3],"kwargs":{}}', call)).toEqual(
      answer({ name: "a", times: 2, more: [3] }),
    );
    const refused = [
      await post("", json),
      await post('{"name":1,"nme":2}', json),
      await post("[1]", json),
      await post("{", json),
      await post('{"name":1}', json, "?name=2"),
      await post('{"args":{}}', call),
      await post("<x/>", { "content-type": "text/xml" }),
    ];
    expect(refused.map(([status]) => status)).toEqual([400, 400, 400, 400, 400, 400, 415]);
    expect(refused.map(([, , text]) => JSON.parse(String(text)).error.message)).toEqual([
      "handler(name, times=1, *more): missing a required argument: 'name'",
      "handler(name, times=1, *more): got an unexpected keyword argument 'nme'",
      "the body must be a JSON object: its members are the handler's arguments",
      expect.stringContaining("the body is no JSON: "),
      "name stands both in the query and in the body",
      'a call is {"args": […], "kwargs": {…}}',
      expect.stringContaining("named `request`"),
    ]);
  });

  test("what fits a function is what Python itself says", async () => {
    // Every combination of kinds of parameters with every combination of arguments, against the call.
    const { stdout } = await run(["python3", "-c", againstCalls], {
      cwd: import.meta.dir,
      env: { PYTHONDONTWRITEBYTECODE: "1" },
    });
    expect(stdout).toBe("7680 calls, wrong: []\n");
  });

  test("a handler of a request is given it as it came, and answers as it likes", async () => {
    await using runner = await Runner.start(`
from oci_node import Request, Response, request_id

def handler(request):
    if request.path == "/bad": return Response("x", headers={"a": "b\\r\\nset-cookie: c"})
    if request.path == "/text": return Response("Grüße")
    if request.path == "/bytes": return b"\\x00\\xff"
    if request.path == "/none": return None
    if request.path == "/set": return {1, 2}
    if request.path == "/nan": return float("nan")
    body = [request.method, request.path, request.query, request.headers["X-Some"], len(request.body), request_id()]
    return Response(body, status=201, headers={"X-Own": "1", "Connection": "close", "oci-node-error": "exception"})
`);
    const answer = await fetch(`${runner.url}/a%2Fb//c?x=1&x=2`, {
      method: "PATCH",
      body: new Uint8Array(3_000_000),
      headers: { "x-some": "value", "x-request-id": "r-1" },
    });
    expect([answer.status, answer.headers.get("x-own"), answer.headers.get("oci-node-error")]).toEqual([
      201,
      "1",
      null,
    ]);
    expect(await answer.json()).toEqual(["PATCH", "/a%2Fb//c", { x: "2" }, "value", 3_000_000, "r-1"]);
    const get = (path: string) => fetch(`${runner.url}${path}`).then(told);
    expect(await get("/text")).toEqual([200, "text/plain; charset=utf-8", "Grüße"]);
    expect((await get("/bytes")).slice(0, 2)).toEqual([200, "application/octet-stream"]);
    expect(await get("/none")).toEqual([200, "application/json", "null"]);
    for (const [path, what] of [
      ["/bad", "header a whose value cannot be sent"],
      ["/set", "Object of type set is not JSON serializable"],
      ["/nan", "not JSON compliant"],
    ] as const) {
      const [status, , text] = await get(path);
      expect([status, JSON.parse(String(text)).error.message]).toEqual([500, expect.stringContaining(what)]);
    }
    const head = await fetch(`${runner.url}/text`, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "7", ""]);
  });
});

const againstCalls = `
import itertools
from oci_node_runner.target import Target
calls, wrong = 0, []
kinds = itertools.product(["", "p, /, ", "p=1, /, "], ["", "a, ", "a=1, "], ["", "*rest, ", "*, "], ["", "k, ", "k=1, "], ["", "**more"])
for first, second, star, third, last in kinds:
    text = "def f(%s): pass" % (first + second + star + third + last).rstrip(", ")
    scope = {}
    try: exec(text, scope)
    except SyntaxError: continue
    f, names = scope["f"], ["p", "a", "k", "x"]
    for count in range(4):
        for given in itertools.product([False, True], repeat=4):
            args, kwargs = tuple(range(count)), {n: 1 for n, g in zip(names, given) if g}
            try: f(*args, **kwargs); fits = True
            except TypeError: fits = False
            calls += 1
            if (Target(f).check(args, kwargs) is None) != fits or Target(f)._fits(args, kwargs) != fits:
                wrong.append((text, args, kwargs, fits))
print("%d calls, wrong: %s" % (calls, wrong[:5]))
`;

/** As Python's `json.dumps` writes it. */
function pythonJson(value: object): string {
  return JSON.stringify(value).replace(/([,:])/g, "$1 ");
}

describe("failures", () => {
  test("an exception is told with its traceback, in the answer and in the log with the request's id", async () => {
    await using runner = await Runner.start(`
def inner(): raise KeyError("the key")
def handler(): inner()
`);
    const answer = await fetch(runner.url, { headers: { "x-request-id": "r-42" } });
    expect([answer.status, answer.headers.get("oci-node-error")]).toEqual([500, "exception"]);
    const { error } = (await answer.json()) as { error: Record<string, string> };
    expect([error["type"], error["message"]]).toEqual(["KeyError", "'the key'"]);
    expect(error["traceback"]).toMatch(
      /^Traceback.*\n {2}File ".*\/code\/app\.py", line 3, in handler\n(.*\n)+KeyError: 'the key'\n$/,
    );
    await runner.says(/the handler failed \(request r-42\)\nTraceback/);
    expect(runner.output).not.toContain("oci_node_runner");
  });

  test("sys.exit in a handler ends the program with its code, also where the handler is asynchronous", async () => {
    for (const definition of ["def", "async def"]) {
      await using runner = await Runner.start(`import sys\n${definition} handler(): sys.exit(3)`);
      await expect(fetch(runner.url)).rejects.toThrow();
      expect(await runner.ended()).toBe(3);
      expect(runner.output).toContain("the handler called sys.exit(): the program ends with 3");
    }
  });

  test("a handler that never returns is told with where it is, and makes room for another container", async () => {
    await using runner = await Runner.start(
      `
import time
def forever():
    while True: time.sleep(0.01)
def handler(request):
    print("begun", flush=True)
    if request.path == "/forever": forever()
`,
      { OCI_NODE_TIMEOUT_MS: "100", OCI_NODE_CONCURRENCY: "2" },
    );
    const hangUp = new AbortController();
    const id = { "x-request-id": "r-7" };
    const stuck = fetch(`${runner.url}/forever`, { signal: hangUp.signal, headers: id }).catch(
      () => "hung up",
    );
    await runner.says(/begun/);
    // Somebody waits: it goes on, and others are answered.
    expect(await (await fetch(runner.url)).json()).toBe(null);
    hangUp.abort();
    expect([await stuck, await runner.ended()]).toEqual(["hung up", 124]);
    expect(runner.output).toMatch(
      /not returned after 0\.1 s, and nobody waits any more \(request r-7\)\n {2}File ".*app\.py", line 7, in handler\n[\s\S]*line 4, in forever\n/,
    );
  });

  test("a start that fails says what failed: the import, the name, the variable", async () => {
    const cases: [Record<string, string>, Record<string, string>, RegExp][] = [
      [
        { "app.py": "x = 1\nimport absent_package\n" },
        {},
        /^Traceback[\s\S]*line 2, in <module>[\s\S]*No module named 'absent_package'\noci-node: importing app failed\n$/,
      ],
      [{ "app.py": "def f(:\n" }, {}, /SyntaxError[\s\S]*importing app failed/],
      [{ "other.py": "" }, {}, /^oci-node: there is no module app in the uploaded code\n$/],
      [{ "app.py": "" }, {}, /^oci-node: the module app has no handler\n$/],
      [{ "app.py": "handler = 1" }, {}, /^oci-node: the module app has handler, which is no function\n$/],
      [{ "app.py": "import sys\nsys.exit(0)" }, {}, /SystemExit: 0\noci-node: importing app failed\n$/],
      [{ "app.py": "" }, { OCI_NODE_HANDLER: "" }, /^oci-node: OCI_NODE_HANDLER is not set\n$/],
    ];
    await Promise.all(
      cases.map(async ([files, env, pattern]) => {
        await using runner = await Runner.spawn(files, env);
        expect(await runner.ended()).toBe(1);
        expect(runner.output).toMatch(pattern);
        expect(runner.output).not.toMatch(/oci_node_runner|importlib/);
      }),
    );
  });
});

describe("streams", () => {
  const app = (kind: string) => `
import asyncio, threading
from oci_node import Response
gate = threading.Event()
closed = threading.Event()
${kind} handler(request):
    if request.path == "/open": gate.set(); yield "opened"; return
    if request.path == "/closed": yield closed.wait(30); return
    if request.path == "/bytes": yield b"\\x00"; yield b"\\xff"; return
    if request.path == "/lines": yield {"a": 1}; yield None; yield "b"; return
    if request.path == "/fails":
        yield "begun"
        raise ValueError("midway")
    try:
        yield "first\\nline"
        ${kind === "def" ? "gate.wait(30)" : "await asyncio.get_running_loop().run_in_executor(None, gate.wait, 30)"}
        while True:
            yield "x" * (100000 if request.path == "/endless" else 1)
            if request.path != "/endless": return
    finally:
        closed.set()
`;
  for (const kind of ["def", "async def"]) {
    test(`${kind}: pieces arrive as they are made, as events where they are asked for; who hangs up ends it`, async () => {
      await using runner = await Runner.start(app(kind), { OCI_NODE_CONCURRENCY: "3" });
      const events = await fetch(runner.url, { headers: { accept: "text/event-stream" } });
      const reader = events.body?.getReader() as ReadableStreamDefaultReader<Uint8Array>;
      const next = async () => Buffer.from((await reader.read()).value ?? []).toString();
      // Nothing more comes until the gate is open.
      expect([events.headers.get("content-type"), await next()]).toEqual([
        "text/event-stream",
        "data: first\ndata: line\n\n",
      ]);
      expect(await told(await fetch(`${runner.url}/open`))).toEqual([
        200,
        "text/plain; charset=utf-8",
        "opened",
      ]);
      expect(await next()).toBe("data: x\n\n");
      expect(await told(await fetch(`${runner.url}/lines`))).toEqual([
        200,
        "application/x-ndjson",
        '{"a": 1}\nnull\n"b"\n',
      ]);
      const bytes = await fetch(`${runner.url}/bytes`);
      expect(Buffer.from(await bytes.arrayBuffer()).toString("hex")).toBe("00ff");
      const broken = await fetch(`${runner.url}/fails`);
      await expect(broken.text()).rejects.toThrow();
      await runner.says(/ValueError: midway/);

      const hangUp = new AbortController();
      const endless = await fetch(`${runner.url}/endless`, { signal: hangUp.signal });
      await endless.body?.getReader().read();
      hangUp.abort();
      expect(await (await fetch(`${runner.url}/closed`)).text()).toBe("true\n");
    });
  }

  test("an asynchronous handler whose caller hangs up is cancelled", async () => {
    await using runner = await Runner.start(
      `
import asyncio
async def handler(request):
    if request.path != "/wait": return "here"
    try:
        print("waiting", flush=True)
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
`,
      { OCI_NODE_CONCURRENCY: "2" },
    );
    const hangUp = new AbortController();
    const waiting = fetch(`${runner.url}/wait`, { signal: hangUp.signal }).catch(() => "hung up");
    await runner.says(/waiting/);
    expect(await (await fetch(runner.url)).json()).toBe("here");
    hangUp.abort();
    expect(await waiting).toBe("hung up");
    await runner.says(/cancelled/);
  });
});

test("SIGTERM: what was begun is answered, nothing new is taken, the exit code is 0", async () => {
  await using runner = await Runner.start("def handler(n): return n");
  // A kept connection without a request does not hold the end up.
  const idle = Connection.open(runner.url);
  const begun = await Connection.open(runner.url);
  begun.send("POST / HTTP/1.1\r\ncontent-length: 7\r\nexpect: 100-continue\r\n\r\n");
  await begun.says(/100 Continue/);
  runner.signal("SIGTERM");
  expect(await (await idle).closed).toBe("");
  await expect(fetch(runner.url)).rejects.toThrow();
  begun.send('{"n":5}');
  expect(await begun.closed).toMatch(/HTTP\/1\.1 200 OK\r\n[\s\S]*connection: close\r\n\r\n5$/);
  expect(await runner.ended()).toBe(0);
});

test("what is no proper HTTP is refused and the connection closed", async () => {
  await using runner = await Runner.start("def handler(): return 1");
  const host = "host: x\r\n";
  const answerTo = async (bytes: string) => {
    const connection = await Connection.open(runner.url);
    connection.send(bytes);
    return connection.closed;
  };
  for (const [bytes, status] of [
    ["GET /\r\n\r\n", 400],
    [`GET / HTTP/2.0\r\n${host}\r\n`, 400],
    [`GET / HTTP/1.1\r\n${host}a b: c\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}content-length: 1\r\ncontent-length: 2\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}content-length: -1\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}transfer-encoding: gzip\r\n\r\n`, 501],
    [`POST / HTTP/1.1\r\n${host}transfer-encoding: chunked\r\n\r\nxyz\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}content-length: 99999999999\r\n\r\n`, 413],
    [`GET / HTTP/1.1\r\na: ${"b".repeat(70_000)}\r\n\r\n`, 431],
  ] as const) {
    expect(await answerTo(bytes)).toStartWith(`HTTP/1.1 ${status} `);
  }
  const two = `POST / HTTP/1.1\r\n${host}expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nt: u\r\n\r\nGET / HTTP/1.0\r\n\r\n`;
  expect((await answerTo(two)).match(/HTTP\/1\.1 \d+/g)).toEqual([
    "HTTP/1.1 100",
    "HTTP/1.1 200",
    "HTTP/1.1 200",
  ]);
});
