import { expect, test } from "bun:test";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { workerShape } from "../../src/cli/shape.ts";
import { requestCertificate } from "../../src/cluster/certificate.ts";
import { TestCluster as OtherCluster } from "../../src/cluster/cluster.test-kit.ts";
import { authoritiesIn, parseJoinToken } from "../../src/cluster/join-token.ts";
import { schedulerName, workerIdOf } from "../../src/cluster/names.ts";
import { JoinService, SchedulerService } from "../../src/gen/oci_node/v1/scheduler_service_pb.ts";
import { WorkerService } from "../../src/gen/oci_node/v1/worker_service_pb.ts";
import { clusterTransport } from "../../src/rpc/transport.ts";
import { TlsIdentity } from "../../src/std/tls-identity.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { TestCluster } from "../kit/cluster.ts";
import { leftovers } from "../kit/leftovers.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { type Container, inScratch, withCredentials } from "../kit/world.ts";

type Worker = ReturnType<typeof workerShape>;

const waiting = ["--", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"];
const room = ["worker.cpu = 16"];

const codeOf = async (call: Promise<unknown>) =>
  await call.then(
    () => "taken",
    (error: unknown) => Code[ConnectError.from(error).code],
  );

test("hosts join by token, renew by themselves, and one that is revoked gets nothing more and loses what it ran", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await busyboxImage(), registry, "team/app:1");
  await inScratch(async (dir) => {
    const cluster = await TestCluster.start(dir, registry, ['cluster.certificate_life = "8s"']);
    try {
      const token = await cluster.joinToken();
      const a = await cluster.worker("a", token, room);
      const b = await cluster.worker("b", token, room);
      await cluster.ok("image", "build", reference, "--index-only", ...withCredentials);
      const run = (...flags: string[]) => cluster.ok("run", "-d", ...flags, reference, ...waiting);
      const inspect = (id: string) => cluster.json<Container>("inspect", id);
      const workers = async () =>
        Object.fromEntries((await cluster.json<Worker[]>("worker", "ls")).map((each) => [each.name, each]));
      const before = await workers();

      // More than either has room for.
      const ids: string[] = [];
      for (let at = 0; at < 6; at += 1) ids.push(await run("--cpu", "3"));
      const placed = await Promise.all(ids.map((id) => reaches(() => inspect(id), "running")));
      const onA = placed.filter(({ worker }) => worker === before["a"]?.id).map(({ id }) => id);
      const onB = placed.filter(({ worker }) => worker === before["b"]?.id).map(({ id }) => id);
      expect([onA.length > 0, onB.length > 0, onA.length + onB.length]).toEqual([true, true, 6]);

      // Certificates take the place of each other, without the token, and nothing ends with the old one.
      await Promise.all([a, b].map((worker) => rm(join(worker.dir, "token"))));
      for (const { program } of [a, b])
        await program.waitFor(/certificate renewed[\s\S]*certificate renewed/);
      const renewed = await workers();
      for (const name of ["a", "b"]) {
        expect(renewed[name]?.id).toBe(before[name]?.id as string);
        expect((renewed[name]?.certificateExpiresAt ?? "") > (before[name]?.certificateExpiresAt ?? "")).toBe(
          true,
        );
      }

      // Under load: containers that are queued, scheduled and run while the worker is taken out.
      const more = Array.from({ length: 6 }, () => run("--cpu", "0.1"));
      const told = await cluster.ok("worker", "revoke", "a");
      expect(told).toBe(before["a"]?.id as string);
      const later = [...(await Promise.all(more)), await run("--cpu", "0.1")];
      for (const id of onA) {
        const { state, reason } = await inspect(id);
        expect([id, state, reason]).toEqual([id, "failed", "worker a was revoked"]);
      }
      for (const id of later) {
        const container = await settled(() => inspect(id));
        const fate = container.worker === before["b"]?.id ? container.state : container.reason;
        expect(["running", "worker a was revoked"]).toContain(fate as string);
      }
      expect((await inspect(later.at(-1) as string)).worker).toBe(before["b"]?.id as string);
      await a.program.waitFor(/this worker was revoked.*remove the folder worker\/identity/);
      expect((await workers())["a"]).toMatchObject({ state: "revoked", containers: 0 });
      expect((await inspect(onB[0] as string)).state).toBe("running");

      // It comes back neither by itself nor with a token, but as another.
      await a.program.stop();
      const again = await cluster.begin("a", token, room);
      expect(await again.program.child.exited).toBe(1);
      expect(again.program.output).toMatch(/was revoked\n +If that host shall work again/);
      await rm(join(a.dir, "data/worker/identity"), { recursive: true });
      const next = await cluster.worker("a", token, room);
      const all = await cluster.json<Worker[]>("worker", "ls");
      expect(all.map(({ name, state }) => `${name} ${state}`).sort()).toEqual([
        "a ready",
        "a revoked",
        "b ready",
      ]);

      // Scheduler and gateway start again with certificates of the same authority: who joined goes on.
      await cluster.restartControl();
      const kept = onB[0] as string;
      await cluster.ok("stop", kept);
      const ended = await inspect(kept);
      expect([ended.state, ended.exitCode]).toEqual(["stopped", 7]);
      // One that is revoked while it is away ends what it left as soon as it is back.
      const left = await run("--cpu", "0.1");
      const { worker: on } = await reaches(() => inspect(left), "running");
      const holder = (await cluster.json<Worker[]>("worker", "ls")).find(({ id }) => id === on);
      const away = holder?.name === "b" ? b : next;
      await away.program.stop("SIGUSR2");
      await cluster.ok("worker", "revoke", on as string);
      const back = await cluster.begin(holder?.name ?? "", undefined, room);
      expect(await back.program.child.exited).toBe(1);
      expect(await leftovers(away.dir)).toEqual([]);
      for (const id of await cluster.json<Container[]>("ps"))
        await cluster.ok("stop", "--timeout", "1", id.id);
    } finally {
      expect(await cluster.stop()).toEqual([]);
    }
  });
}, 180_000);

test("neither a thief with the join token nor another cluster's certificates stand in for a worker or a scheduler", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  await inScratch(async (dir) => {
    const cluster = await TestCluster.start(dir, registry);
    try {
      const token = await cluster.joinToken();
      const b = await cluster.worker("b", token);
      const saved = authoritiesIn(
        await readFile(join(b.dir, "data/worker/identity/certificate.pem"), "utf8"),
      );
      const [own, authority] = saved.map(({ certificate }) => certificate) as [string, string];
      const victim = workerIdOf(new X509Certificate(own)) as string;
      const [{ address }] = (await cluster.json<Worker[]>("worker", "ls")) as [Worker];
      const url = cluster.schedulerUrl;
      const to = (tls: TlsIdentity, serverName = schedulerName, at = url) =>
        clusterTransport({ url: at, serverName, tls });
      const beat = { workerId: victim, bootNonce: "x" };

      // The thief is let in, as himself.
      const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
      const joining = clusterTransport({
        url,
        serverName: schedulerName,
        tls: { authorities: authority },
        token: parseJoinToken(token, "token").token,
      });
      const joined = await createClient(JoinService, joining).joinCluster({
        certificateRequest: await requestCertificate(key),
        name: "b",
      });
      expect(joined.workerId).not.toBe(victim);
      const thief = new TlsIdentity({ ...joined, privateKey: key });
      const asThief = createClient(SchedulerService, to(thief));
      expect(await codeOf(asThief.registerWorker({ ...beat, name: "b", address }))).toBe("PermissionDenied");
      expect(await codeOf(asThief.heartbeat(beat))).toBe("PermissionDenied");
      expect(await codeOf(asThief.refreshImageCredentials(beat))).toBe("PermissionDenied");
      expect((await asThief.heartbeat({ ...beat, workerId: joined.workerId })).registerAgain).toBe(true);
      // A worker's certificate is no control plane's: nobody takes a container from it.
      const atWorker = (tls: TlsIdentity) =>
        createClient(WorkerService, to(tls, `${victim}.worker.oci-node.internal`, address));
      expect(await codeOf(atWorker(thief).startContainer({}))).toBe("PermissionDenied");

      // Another cluster's authority signs what it likes: here it is nobody.
      const other = await OtherCluster.make();
      const [foreignWorker, foreignPlane] = [await other.worker(victim), await other.controlPlane()];
      for (const foreign of [foreignWorker, foreignPlane].map((tls) => trusting(tls, authority))) {
        expect(await codeOf(createClient(SchedulerService, to(foreign)).heartbeat(beat))).toBe(
          "Unauthenticated",
        );
        expect(await codeOf(atWorker(foreign).startContainer({}))).not.toBe("taken");
      }
      // Nor is a bearer token a way around.
      const withToken = createClient(SchedulerService, joining);
      expect(await codeOf(withToken.heartbeat(beat))).toBe("Unauthenticated");

      // A token that names another authority, or none, is shown to nobody.
      const [bare] = token.split(".");
      const wrong = await cluster.begin("c", `${bare}.${"A".repeat(43)}`);
      expect(await wrong.program.child.exited).toBe(1);
      expect(wrong.program.output).toContain(
        "is not of the cluster that the join token is for: the token was not sent",
      );
      const none = await cluster.begin("c", bare);
      expect(await none.program.child.exited).toBe(1);
      expect(none.program.output).toContain("holds a token without its cluster's authority");
      const without = await cluster.begin("d", undefined);
      expect(await without.program.child.exited).toBe(1);
      expect(without.program.output).toMatch(
        /no join token: .+ cannot be read\n +Put what `oci-node token create/,
      );
    } finally {
      expect(await cluster.stop()).toEqual([]);
    }
  });
}, 120_000);

/** An identity of another cluster whose holder believes this one's server. */
function trusting(identity: TlsIdentity, authorities: string): TlsIdentity {
  const { cert: certificate, key: privateKey } = identity.secureContext();
  return new TlsIdentity({ certificate, privateKey, authorities });
}

async function reaches(look: () => Promise<Container>, state: string): Promise<Container> {
  for (;;) {
    const container = await look();
    if (container.state === state) return container;
    if (["failed", "exited", "stopped"].includes(container.state))
      throw new Error(`${container.id}: ${container.reason}`);
  }
}

async function settled(look: () => Promise<Container>): Promise<Container> {
  for (;;) {
    const container = await look();
    if (["running", "failed", "exited", "stopped"].includes(container.state)) return container;
  }
}
