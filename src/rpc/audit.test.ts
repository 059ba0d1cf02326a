import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AuditError } from "../audit/error.ts";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { makeCertificate } from "../registry/certificate.test-kit.ts";
import { SecretError } from "../secret/error.ts";
import { auditCalls, auditFirst, type CallEvent } from "./audit.ts";
import { audited, unaudited } from "./audit-table.ts";
import { authenticate, type Caller } from "./authentication.ts";
import type { Role } from "./authorization.ts";
import { addressOf } from "./caller-address.ts";
import { translateErrors } from "./error.ts";
import { type Server, serve } from "./server.ts";
import { transportTo } from "./transport.ts";

test("the address at the other end is known with TLS, too, over HTTP/2 and HTTP/1.1", async () => {
  const dir = mkdtempSync(join(tmpdir(), "oci-node-audit-"));
  const { key, certificate } = await makeCertificate("127.0.0.1");
  const [certFile, keyFile] = [join(dir, "crt"), join(dir, "key")];
  writeFileSync(certFile, certificate);
  writeFileSync(keyFile, key, { mode: 0o600 });
  const seen: (string | undefined)[] = [];
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { certFile, keyFile },
    interceptors: [],
    routes: (router) =>
      router.service(SecretService, {
        listSecrets: (_, { values }) => {
          seen.push(addressOf(values));
          return {};
        },
      }),
  });
  try {
    for (const httpVersion of ["2", "1.1"] as const) {
      const nodeOptions = { ca: certificate };
      const transport = createConnectTransport({ baseUrl: server.url, httpVersion, nodeOptions });
      await createClient(SecretService, transport).listSecrets({});
    }
    expect(seen).toEqual(["127.0.0.1", "127.0.0.1"]);
  } finally {
    await server.close();
    rmSync(dir, { recursive: true });
  }
});

test("every method of the API is written down, or stands among those that only read", async () => {
  const folder = join(import.meta.dir, "../gen/oci_node/v1");
  const methods: DescMethod[] = [];
  for (const name of readdirSync(folder)) {
    const exported = Object.values((await import(join(folder, name))) as Record<string, DescService>);
    for (const service of exported)
      if (service?.kind === "service" && service.typeName !== WorkerService.typeName)
        methods.push(...service.methods);
  }
  const known = [...audited, ...unaudited].map(({ method }) => method);
  const names = (list: readonly DescMethod[]) =>
    list.map((one) => `${one.parent.typeName}/${one.name}`).sort();
  expect(methods.length).toBeGreaterThan(40);
  // WorkerService is called by the control plane alone, which wrote down why.
  expect(names(known)).toEqual(names(methods));
  for (const { action, kind } of [...audited, ...unaudited])
    expect([action, kind]).toEqual([
      action,
      expect.stringMatching(
        /^(secret|image|container|token|workspace|worker|key|webhook|endpoint|volume|code)$/,
      ),
    ]);
});

/** A trail in memory; what it is told to refuse it refuses as the real one does. */
class Notebook {
  readonly events: CallEvent[] = [];
  writable = true;
  recordable = true;

  async ensureWritable(): Promise<void> {
    if (!this.writable) throw new AuditError("not_writable", "nothing was done");
  }

  async record(event: CallEvent): Promise<void> {
    if (!this.recordable) throw new AuditError("not_written", "it was done, but not written");
    this.events.push(event);
  }

  async note(event: CallEvent): Promise<void> {
    this.events.push(event);
  }
}

describe("a call", () => {
  let notebook: Notebook;
  let server: Server;
  let done: number;
  let building: () => AsyncGenerator<never>;

  beforeEach(async () => {
    notebook = new Notebook();
    done = 0;
    server = await serve({
      host: "127.0.0.1",
      port: 0,
      interceptors: [
        auditCalls(notebook, () => 0),
        translateErrors,
        authenticate(verify),
        auditFirst(notebook),
      ],
      routes: (router) => {
        router.service(SecretService, {
          createSecret: ({ name }) => {
            done += 1;
            if (name === "taken") throw new SecretError("exists", "there is one");
            return { secret: { id: "s-1", name: name || "made", registry: "registry.test", version: 1 } };
          },
          listSecrets: () => ({}),
        });
        router.service(ImageService, { buildImage: () => building() });
      },
    });
  });
  afterEach(() => server.close());

  const verify = async (token: string): Promise<Caller | undefined> => {
    const [role, name = ""] = token.split("-");
    return name === "" ? undefined : { tokenId: `id-${name}`, name, workspaceId: "w", role: role as Role };
  };
  const secrets = (token: string) => createClient(SecretService, transportTo({ url: server.url, token }));
  const images = (token: string) => createClient(ImageService, transportTo({ url: server.url, token }));
  const codeOf = (call: Promise<unknown>) =>
    call.then(
      () => undefined,
      (error: unknown) => ConnectError.from(error).code,
    );
  const credentials = { USERNAME: "robot", PASSWORD: "the very secret" };

  test("that changes something is written down with who, what, whose and from where; never with a value", async () => {
    await secrets("owner-laptop").createSecret({ name: "acme", credentials });
    expect(notebook.events).toEqual([
      {
        actor: { kind: "token", id: "id-laptop", name: "laptop", role: "owner" },
        workspaceId: "w",
        action: "secret.create",
        target: { kind: "secret", id: "s-1", name: "acme" },
        outcome: "ok",
        address: "127.0.0.1",
        fields: { registry: "registry.test", version: "1" },
      },
    ]);
  });

  test("is written down with the caller's address over HTTP/1.1, too", async () => {
    await fetch(`${server.url}/oci_node.v1.SecretService/CreateSecret`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: "Bearer owner-curl",
        "x-forwarded-for": "6.6.6.6",
      },
      body: JSON.stringify({ credentials }),
    });
    expect(notebook.events).toMatchObject([
      { actor: { name: "curl" }, target: { name: "made" }, address: "127.0.0.1" },
    ]);
  });

  test("that fails is written down with the code of what was wrong", async () => {
    expect(await codeOf(secrets("owner-laptop").createSecret({ name: "taken" }))).toBe(Code.AlreadyExists);
    expect(notebook.events).toMatchObject([{ outcome: "failed", code: "exists", target: { name: "taken" } }]);
  });

  test("that its role does not allow is written down as denied, one that only reads included", async () => {
    expect(await codeOf(secrets("viewer-guest").createSecret({ name: "acme" }))).toBe(Code.PermissionDenied);
    expect(await codeOf(secrets("worker-w1").listSecrets({}))).toBe(Code.PermissionDenied);
    await secrets("viewer-guest").listSecrets({});
    // One who tries every name fills no table.
    for (let name = 0; name < 20; name += 1)
      expect(await codeOf(secrets("viewer-guest").createSecret({ name: `n-${name}` }))).toBe(
        Code.PermissionDenied,
      );
    expect(notebook.events).toHaveLength(2);
    expect(notebook.events).toMatchObject([
      {
        actor: { name: "guest", role: "viewer" },
        action: "secret.create",
        outcome: "denied",
        code: "permission_denied",
      },
      { actor: { name: "w1", role: "worker" }, action: "secret.list", outcome: "denied" },
    ]);
    expect(done).toBe(0);
  });

  test("of somebody unknown is no event: anybody could fill the table", async () => {
    expect(await codeOf(secrets("nonsense").createSecret({}))).toBe(Code.Unauthenticated);
    expect(await codeOf(secrets("nonsense").listSecrets({}))).toBe(Code.Unauthenticated);
    expect(notebook.events).toEqual([]);
  });

  test("that must be seen is not begun while nothing can be written", async () => {
    notebook.writable = false;
    expect(await codeOf(secrets("owner-laptop").createSecret({ name: "acme" }))).toBe(Code.Unavailable);
    expect(done).toBe(0);
    expect(await codeOf(secrets("viewer-guest").listSecrets({}))).toBeUndefined();
  });

  test("whose event is lost at last fails, and gives out nothing", async () => {
    notebook.recordable = false;
    expect(await codeOf(secrets("owner-laptop").createSecret({ name: "acme" }))).toBe(Code.Internal);
    expect(notebook.events).toEqual([]);
  });

  test("that streams is written down at its end, with what came out", async () => {
    const image = { id: "img-1", reference: "registry.test/app:1", manifestDigest: "sha256:00" };
    building = async function* () {
      yield { event: { case: "progress", value: { step: "index" } } } as never;
      expect(notebook.events).toEqual([]);
      yield { event: { case: "image", value: image } } as never;
    };
    const request = { reference: "app:1", baseImageCreds: credentials };
    for await (const _ of images("developer-ci").buildImage(request));
    expect(notebook.events).toMatchObject([
      {
        action: "image.build",
        outcome: "ok",
        target: { id: "img-1", name: image.reference },
        fields: { credentials: "2" },
      },
    ]);
    expect(JSON.stringify(notebook.events)).not.toContain("the very secret");
  });

  test("that streams and fails, or is denied, is written down once", async () => {
    building = async function* () {
      yield { event: { case: "progress", value: { step: "index" } } } as never;
      throw new SecretError("too_large", "too large");
    };
    const all = async (token: string) => {
      for await (const _ of images(token).buildImage({ reference: "app:1" }));
    };
    expect(await codeOf(all("developer-ci"))).toBe(Code.InvalidArgument);
    expect(await codeOf(all("viewer-guest"))).toBe(Code.PermissionDenied);
    expect(notebook.events).toMatchObject([
      { outcome: "failed", code: "too_large", target: { name: "app:1" } },
      { outcome: "denied", actor: { name: "guest" } },
    ]);
  });

  test("that streams and is left by its caller is written down as cancelled", async () => {
    const ended = Promise.withResolvers<void>();
    const leaving = new AbortController();
    notebook.note = async (event) => {
      notebook.events.push(event);
      ended.resolve();
    };
    building = async function* () {
      for (;;) {
        yield { event: { case: "progress", value: { step: "index" } } } as never;
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const left = (async () => {
      for await (const _ of images("developer-ci").buildImage(
        { reference: "app:1" },
        { signal: leaving.signal },
      ))
        leaving.abort();
    })();
    expect(await codeOf(left)).toBe(Code.Canceled);
    await ended.promise;
    expect(notebook.events).toMatchObject([{ action: "image.build", outcome: "failed", code: "canceled" }]);
  });
});
