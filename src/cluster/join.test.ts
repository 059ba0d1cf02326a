import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { eq } from "drizzle-orm";
import { ConfigError } from "../config.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import { JoinService, SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { authenticate } from "../rpc/authentication.ts";
import { authorization } from "../rpc/authorization.ts";
import { authenticateCertificate, authenticateEither } from "../rpc/certificate-authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { clusterTransport } from "../rpc/transport.ts";
import { LocalKey } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { TokenStore } from "../secret/token-store.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { ClusterAuthorities } from "./authorities.ts";
import { AuthorityStore } from "./authority-store.ts";
import { TestCluster } from "./cluster.test-kit.ts";
import { ControlPlaneIdentity } from "./control-plane-identity.ts";
import { IdentityFiles } from "./identity-files.ts";
import { WorkerIdentityStore } from "./identity-store.ts";
import { certifiedWorker, joinService } from "./join-service.ts";
import { formatJoinToken, type JoinToken, parseJoinToken } from "./join-token.ts";
import { authoritiesPath, Membership } from "./membership-client.ts";
import { schedulerName, workerName } from "./names.ts";

let postgres: TestPostgres;
let dir: string;
let scheduler: Server;
let authorities: ClusterAuthorities;
let identities: WorkerIdentityStore;
let tokens: TokenStore;
let lifeMs = 60_000;
let folders = 0;
const closers: (() => Promise<void>)[] = [];
const leaving = new AbortController();

beforeAll(async () => {
  postgres = await startTestPostgres();
  dir = await mkdtemp(join(tmpdir(), "oci-node-join-"));
  const ring = singleKey(new LocalKey("env", new Uint8Array(32).fill(7)));
  authorities = await ClusterAuthorities.open(new AuthorityStore(postgres.database), ring);
  identities = new WorkerIdentityStore(postgres.database);
  tokens = new TokenStore(postgres.database);
  scheduler = await startScheduler((await ControlPlaneIdentity.start(authorities, 3_600_000)).current);
}, 60_000);
afterEach(async () => {
  lifeMs = 60_000;
  for (const close of closers.splice(0)) await close();
});
afterAll(async () => {
  leaving.abort();
  await scheduler.close();
  await postgres.end();
  await rm(dir, { recursive: true });
});

async function startScheduler(
  identity: TlsIdentity,
  pem = authorities.pem,
  onToken?: (token: string) => void,
) {
  return await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity, clients: "asked" },
    interceptors: [
      translateErrors,
      authenticateEither(
        authenticate((token) => {
          onToken?.(token);
          return tokens.verify(token);
        }),
        authenticateCertificate({ worker: certifiedWorker(identities) }),
      ),
    ],
    fallback: (request, response) => response.end(request.url === authoritiesPath ? pem : ""),
    routes: (router) => {
      const dependencies = {
        authorities,
        identities,
        get lifeMs() {
          return lifeMs;
        },
      };
      router.service(JoinService, joinService(dependencies));
      router.service(SchedulerService, {
        registerWorker: () => ({ heartbeatIntervalMs: 1 }),
        heartbeat: () => ({}),
        reportContainer: () => ({}),
        refreshImageCredentials: () => ({}),
        fetchCode: () => ({}),
      });
    },
  });
}

async function joinToken(): Promise<JoinToken & { readonly tokenId: string }> {
  const { token, tokenId } = await tokens.create({ role: "worker", name: "join" });
  return { ...parseJoinToken(formatJoinToken(token, authorities.trusted), "test"), tokenId };
}

async function member(options: { token: JoinToken; folder?: string; url?: string; signal?: AbortSignal }) {
  const folder = options.folder ?? join(dir, `w${folders++}`);
  const membership = new Membership({
    files: await IdentityFiles.open(folder),
    url: options.url ?? scheduler.url,
    name: "host-1",
    joinToken: () => options.token,
    signal: options.signal ?? leaving.signal,
  });
  return { membership, folder };
}

const callsOf = (identity: TlsIdentity, url = scheduler.url) => {
  const transport = clusterTransport({ url, serverName: schedulerName, tls: identity });
  return { scheduler: createClient(SchedulerService, transport), join: createClient(JoinService, transport) };
};
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "taken",
    (error: unknown) => (error instanceof ConnectError ? Code[error.code] : (error as { code: string }).code),
  );

test("a host joins for the id that is its key's, is written down, and starts again without the token", async () => {
  const token = await joinToken();
  const { membership, folder } = await member({ token });
  await membership.begin();
  const id = membership.workerId;
  const [row] = await identities.joinedWith(token.tokenId);
  expect(row).toMatchObject({ workerId: id, name: "host-1", joinedFrom: "127.0.0.1", revokedAt: null });
  expect((await readdir(folder)).sort()).toEqual(["certificate.pem", "key.pem"]);
  expect((await stat(join(folder, "key.pem"))).mode & 0o777).toBe(0o600);
  expect(await codeOf(callsOf(membership.identity).scheduler.heartbeat({ workerId: id }))).toBe("taken");

  await tokens.revoke(token.tokenId);
  const { membership: again } = await member({ token, folder });
  await again.begin();
  expect([again.workerId, again.identity.certificate]).toEqual([id, membership.identity.certificate]);
});

test("a join token that was revoked, is of another role or was made up lets nobody in", async () => {
  const token = await joinToken();
  await tokens.revoke(token.tokenId);
  const admin = (await tokens.create({ role: "admin", name: "x" })).token;
  for (const bare of [token.token, admin, `ocn_${"x".repeat(43)}`]) {
    const { membership } = await member({ token: { ...token, token: bare } });
    expect(await codeOf(membership.begin())).toMatch(/not_joined|bad_token/);
  }
});

test("a host without a certificate and without a token says what it lacks, in place of asking forever", async () => {
  const lacking = new ConfigError("unreadable", "no join token");
  const files = await IdentityFiles.open(join(dir, "tokenless"));
  const joinToken = () => {
    throw lacking;
  };
  const { url } = scheduler;
  const membership = new Membership({ files, url, name: "host-1", joinToken, signal: leaving.signal });
  await expect(membership.begin()).rejects.toBe(lacking);
});

test("the token is shown to nobody whose certificate the pinned authority did not sign", async () => {
  const token = await joinToken();
  const evil = await TestCluster.make();
  const shown: string[] = [];
  // It answers with the true authority, which everybody can fetch, alone and beside its own.
  for (const pem of [
    authorities.pem,
    `${evil.signer.certificate}${authorities.pem}`,
    evil.signer.certificate,
  ]) {
    const between = await startScheduler(await evil.controlPlane(), pem, (seen) => shown.push(seen));
    closers.push(() => between.close());
    const { membership, folder } = await member({ token, url: between.url });
    expect(await codeOf(membership.begin())).toBe("wrong_authority");
    expect(await readdir(folder)).toEqual(["key.pem"]);
  }
  expect(shown).toEqual([]);
});

test("every call that is a worker's says which, and no worker speaks for another", async () => {
  const token = await joinToken();
  const [{ membership: one }, { membership: two }] = [await member({ token }), await member({ token })];
  await one.begin();
  await two.begin();
  const calls = callsOf(one.identity).scheduler;
  const methods = Object.keys(authorization["oci_node.v1.SchedulerService"]) as (keyof typeof calls)[];
  for (const method of methods) {
    expect(SchedulerService.method[method].input.fields.map(({ localName }) => localName)).toContain(
      "workerId",
    );
    expect(await codeOf(calls[method]({ workerId: one.workerId }))).toBe("taken");
    expect(await codeOf(calls[method]({ workerId: two.workerId }))).toBe("PermissionDenied");
    expect(await codeOf(calls[method]({}))).toBe("PermissionDenied");
  }
});

test("no certificate, one of another cluster, and the control plane's own open nothing that is a worker's", async () => {
  const { membership } = await member({ token: await joinToken() });
  await membership.begin();
  const { workerId } = membership;
  const evil = await TestCluster.make();
  const nobody = createClient(
    SchedulerService,
    clusterTransport({
      url: scheduler.url,
      serverName: schedulerName,
      tls: { authorities: authorities.pem },
    }),
  );
  expect(await codeOf(nobody.heartbeat({ workerId }))).toBe("Unauthenticated");
  const believing = (identity: TlsIdentity) => ({
    ...identity,
    secureContext: () => ({ ...identity.secureContext(), ca: authorities.pem }),
  });
  const foreign = believing(await evil.worker(workerId)) as unknown as TlsIdentity;
  expect(await codeOf(callsOf(foreign).scheduler.heartbeat({ workerId }))).toBe("Unauthenticated");
  // Nor one for the worker's own key, with which it could give itself a longer life.
  const { key } = membership.identity.secureContext();
  const longer = believing(await evil.identity([workerName(workerId)], 1e9, key)) as unknown as TlsIdentity;
  expect(await codeOf(callsOf(longer).scheduler.heartbeat({ workerId }))).toBe("Unauthenticated");
  const plane = (await ControlPlaneIdentity.start(authorities, 60_000)).current;
  expect(await codeOf(callsOf(plane).scheduler.heartbeat({ workerId }))).toBe("Unauthenticated");
});

test("a revoked worker is refused at its next call over the same connection, and neither renews nor joins", async () => {
  const token = await joinToken();
  const { membership, folder } = await member({ token });
  await membership.begin();
  const { workerId } = membership;
  const calls = callsOf(membership.identity);
  expect(await codeOf(calls.scheduler.heartbeat({ workerId }))).toBe("taken");
  await postgres.database.query((db) =>
    db.update(workerIdentities).set({ revokedAt: new Date() }).where(eq(workerIdentities.workerId, workerId)),
  );
  expect(await codeOf(calls.scheduler.heartbeat({ workerId }))).toBe("PermissionDenied");
  const files = await IdentityFiles.open(folder);
  const certificateRequest = await files.request();
  expect(await codeOf(calls.join.renewCertificate({ certificateRequest }))).toBe("PermissionDenied");
  expect(await codeOf(membership.joinAgain())).toBe("revoked");
});

test("whoever has a revoked host comes back as another worker for as long as he has a join token that counts", async () => {
  const token = await joinToken();
  const first = (await member({ token })).membership;
  await first.begin();
  await postgres.database.query((db) => db.update(workerIdentities).set({ revokedAt: new Date() }));
  const second = (await member({ token })).membership;
  await second.begin();
  expect(second.workerId).not.toBe(first.workerId);
  expect((await identities.joinedWith(token.tokenId)).map(({ workerId }) => workerId).sort()).toEqual(
    [first.workerId, second.workerId].sort(),
  );
  await tokens.revoke(token.tokenId);
  expect(await codeOf((await member({ token })).membership.begin())).not.toBe("taken");
});

test("a token that is revoked while somebody joins with it lets nobody in of whom its revocation did not tell", async () => {
  const { tokenId } = await joinToken();
  const worker = {
    workerId: randomUUID(),
    publicKeySha256: "0".repeat(64),
    name: "late",
    tokenId,
    joinedFrom: "",
    certificateSerial: "1",
    certificateNotAfter: new Date(Date.now() + 60_000),
  };
  await tokens.revoke(tokenId);
  // As of a call that was let in a moment before.
  expect(await codeOf(identities.join(worker))).toBe("bad_token");
  expect(await identities.joinedWith(tokenId)).toEqual([]);
});

test("a certificate counts no longer than its time, also over a connection that is older", async () => {
  lifeMs = 2_000;
  const { membership } = await member({ token: await joinToken() });
  await membership.begin();
  const { workerId } = membership;
  const calls = callsOf(membership.identity).scheduler;
  const said: string[] = [];
  while (said.at(-1) !== "Unauthenticated") said.push(await codeOf(calls.heartbeat({ workerId })));
  expect(new Set(said)).toEqual(new Set(["taken", "Unauthenticated"]));
});

test("a worker renews by its certificate alone, keeps its id, and after the end joins by the token", async () => {
  lifeMs = 3_000;
  const token = await joinToken();
  const stopping = new AbortController();
  const { membership, folder } = await member({ token, signal: stopping.signal });
  await membership.begin();
  await tokens.revoke(token.tokenId);
  const first = membership.identity;
  const renewed = await new Promise<TlsIdentity>((resolve, reject) => {
    void membership.keepFresh({ renewed: resolve, revoked: reject });
  });
  stopping.abort();
  expect(renewed.certificate).not.toBe(first.certificate);
  const { workerId } = membership;
  expect(await codeOf(callsOf(renewed).scheduler.heartbeat({ workerId }))).toBe("taken");

  // Saved ones count until they end: then there is only the token, which is revoked.
  const old = await IdentityFiles.open(folder);
  while ((await old.saved()) !== undefined);
  const { membership: late } = await member({ token, folder });
  expect(await codeOf(late.begin())).toBe("not_joined");
  const { membership: back } = await member({ token: await joinToken(), folder });
  await back.begin();
  expect(back.workerId).toBe(workerId);
});

test("nobody gets a certificate for another's key by his own", async () => {
  const token = await joinToken();
  const [{ membership: one }, { folder }] = [await member({ token }), await member({ token })];
  await one.begin();
  const certificateRequest = await (await IdentityFiles.open(folder)).request();
  expect(await codeOf(callsOf(one.identity).join.renewCertificate({ certificateRequest }))).toBe(
    "InvalidArgument",
  );
});

test("a name that would spoil a log or a table is refused", async () => {
  const token = await joinToken();
  const { folder } = await member({ token });
  const certificateRequest = await (await IdentityFiles.open(folder)).request();
  const transport = clusterTransport({
    url: scheduler.url,
    serverName: schedulerName,
    tls: { authorities: authorities.pem },
    token: token.token,
  });
  const client = createClient(JoinService, transport);
  for (const name of ["", "a b", "a\nb", "a\u0000", "\u202Eevil", "x".repeat(254)])
    expect(await codeOf(client.joinCluster({ certificateRequest, name }))).toBe("InvalidArgument");
  expect(await codeOf(client.joinCluster({ certificateRequest, name: "host-1.lan" }))).toBe("taken");
});
