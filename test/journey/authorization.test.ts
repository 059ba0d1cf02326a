import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { DescMethod } from "@bufbuild/protobuf";
import { accessTo, type Role } from "../../src/rpc/authorization.ts";
import { freePort } from "../kit/roles.ts";
import { allServices, type CallOutcome, callMethod } from "../kit/services.ts";
import { type Tenant, TenantScene, type Things } from "../kit/tenant-scene.ts";
import { walkOf } from "../kit/walk-requests.ts";

const tenantRoles = ["owner", "developer", "viewer"] as const;
/** These have ports of their own, where a certificate decides. */
const elsewhere = /^oci_node\.v1\.(Join|Scheduler|Worker)Service$/;

const services = await allServices();
const methods = services.flatMap((service) => service.methods);
const methodOf = (title: string) => methods.find((method) => titleOf(method) === title) as DescMethod;
const titleOf = (method: DescMethod) => `${method.parent.name}/${method.name}`;

let scene: TenantScene;
let schedulerUrl: string;
let made = 0;
const once = () => {
  made += 1;
  return `made-on-the-walk-${made}`;
};

beforeAll(async () => {
  const schedulerAddress = `127.0.0.1:${await freePort()}`;
  schedulerUrl = `https://${schedulerAddress}`;
  scene = await TenantScene.start(() => [
    `scheduler.listen = "${schedulerAddress}"`,
    "[workspaces.alpha]",
    "release_credentials = true",
    "[workspaces.beta]",
    "release_credentials = true",
  ]);
  await scene.fill();
}, 120_000);
afterAll(() => scene.stop(), 60_000);

const call = (token: string | undefined, method: DescMethod, body: object) =>
  callMethod(scene.node.url, token, method, body);

const walked = (method: DescMethod, things: Things) =>
  walkOf(method.parent.typeName, method.localName)?.(things, once) ?? [];

/** What an answer says but for the names that the caller gave himself. */
function withoutNames({ code, text }: CallOutcome, body: object): string {
  const names = namesIn(body).filter(([, value]) => value !== "");
  names.sort(([, a], [, b]) => b.length - a.length);
  const said = names.reduce((left, [name, value]) => left.replaceAll(value, `<${name}>`), text);
  return `${code}: ${said}`;
}

test("every method is on the walk", () => {
  expect(methods.filter((method) => walkOf(method.parent.typeName, method.localName) === undefined)).toEqual(
    [],
  );
  expect(methods.length).toBeGreaterThan(45);
});

describe("nobody without a token that counts is let in:", () => {
  for (const method of methods.filter(({ parent }) => !elsewhere.test(parent.typeName))) {
    test(titleOf(method), async () => {
      const [tenant] = scene.tenants as [Tenant];
      const { expired, revoked } = scene.tokens;
      const garbage = [`ocn_${"A".repeat(43)}`, "nonsense", `${tenant.tokens.owner}x`];
      const told = new Set<string>();
      for (const token of [expired, revoked, ...garbage])
        for (const { body } of walked(method, tenant)) {
          const { code, text } = await call(token, method, body);
          told.add(`${code}: ${text}`);
        }
      expect([...told]).toEqual(["unauthenticated: the token is unknown, expired or revoked"]);
      const [request] = walked(method, tenant);
      expect(await call(undefined, method, request?.body ?? {})).toEqual({
        code: "unauthenticated",
        text: "the call has no bearer token",
      });
    });
  }
});

/** What a caller of a workspace must not see of another. */
function marksOf(tenant: Tenant): string[] {
  const {
    secret,
    imageId,
    reference,
    pinned,
    ended,
    running,
    token,
    webhook,
    volume,
    endpoint,
    tokens,
    workspace,
  } = tenant;
  const things = [secret, imageId, reference, pinned, ended, running, token, webhook, volume, endpoint];
  return [...things, ...Object.values(tokens), `of-${workspace}/`, `"${workspace}"`];
}

/** Also of messages inside of messages. */
function namesIn(body: object): [string, string][] {
  return Object.entries(body).flatMap(([name, value]): [string, string][] => {
    if (typeof value === "string") return [[name, value]];
    return typeof value === "object" && !Array.isArray(value) ? namesIn(value) : [];
  });
}

function assertNothingOf(other: Tenant, outcome: CallOutcome, body: object): void {
  const asked = JSON.stringify(body);
  const seen = marksOf(other).filter((mark) => outcome.text.includes(mark) && !asked.includes(mark));
  expect(seen).toEqual([]);
}

async function walkAsTenant(method: DescMethod, role: (typeof tenantRoles)[number]): Promise<void> {
  const [alpha, beta] = scene.tenants as [Tenant, Tenant];
  const own = walked(method, beta);
  const others = walked(method, alpha);
  const absent = walked(method, scene.absent);
  for (const [at, request] of own.entries()) {
    const token = beta.tokens[role];
    const mine = await call(token, method, request.body);
    expect(`${mine.code}: ${mine.text}`).toStartWith(`${request.own ?? "ok"}: `);
    assertNothingOf(alpha, mine, request.body);
    const foreign = others[at]?.body ?? {};
    const theirs = await call(token, method, foreign);
    const missing = absent[at]?.body ?? {};
    const nobodys = await call(token, method, missing);
    const expected = request.other ?? "not_found";
    if (expected !== "same") expect(`${theirs.code}: ${theirs.text}`).toStartWith(`${expected}: `);
    if (theirs.code !== "ok") expect(withoutNames(theirs, foreign)).toBe(withoutNames(nobodys, missing));
    else expect(nobodys.code).toBe("ok");
    assertNothingOf(alpha, theirs, foreign);
    if (request.undo !== undefined) {
      const undo = methodOf(request.undo);
      for (const body of [foreign, missing]) await call(beta.tokens.owner, undo, body);
    }
  }
}

const refused = (role: Role, method: DescMethod) =>
  `permission_denied: a token with the role ${role} may not call ${method.parent.typeName}/${method.name}\n`;

async function isRefused(token: string | undefined, role: Role, method: DescMethod): Promise<void> {
  for (const things of [...scene.tenants, scene.absent])
    for (const { body } of walked(method, things)) {
      const { code, text } = await call(token, method, body);
      expect(`${code}: ${text}`).toStartWith(refused(role, method));
    }
}

for (const role of tenantRoles) {
  describe(`a token with the role ${role} is told what the table says of its own workspace, and nothing of another:`, () => {
    for (const method of methods.filter(({ parent }) => !elsewhere.test(parent.typeName))) {
      test(titleOf(method), async () => {
        const access = accessTo(method.parent.typeName, method.localName);
        if (access?.by !== "token") throw new Error("the gateway knows no certificates");
        if (access.roles.includes(role)) await walkAsTenant(method, role);
        else await isRefused((scene.tenants[1] as Tenant).tokens[role], role, method);
      }, 60_000);
    }
  });
}

/** A worker's token has the fingerprint of the cluster's authority behind it, which is no part of it. */
const bare = (role: "admin" | "worker") => scene.tokens[role].split(".")[0];

for (const role of ["admin", "worker"] as const) {
  describe(`a token with the role ${role} opens what is the cluster's, and nothing inside a workspace:`, () => {
    for (const method of methods.filter(({ parent }) => !elsewhere.test(parent.typeName))) {
      test(titleOf(method), async () => {
        const access = accessTo(method.parent.typeName, method.localName);
        if (access?.by !== "token" || !access.roles.includes(role)) {
          await isRefused(bare(role), role, method);
          return;
        }
        expect(access.about).not.toBe("own workspace");
        for (const tenant of scene.tenants)
          for (const { body, own = "ok" } of walked(method, tenant)) {
            const { code, text } = await call(bare(role), method, body);
            expect(`${code}: ${text}`).toStartWith(`${own}: `);
          }
      }, 60_000);
    }
  });
}

/** A token, and what it is. */
const everyToken = () => {
  const [{ tokens }] = scene.tenants as [Tenant];
  return Object.entries({
    ...tokens,
    ...scene.tokens,
    worker: bare("worker"),
    garbage: "nonsense",
    none: undefined,
  });
};

describe("no token opens what is a worker's or the control plane's; a join token lets a host join, and no more:", () => {
  const place = (service: string) =>
    service === "oci_node.v1.WorkerService" ? workerUrl() : Promise.resolve(schedulerUrl);
  const workerUrl = async () => {
    const [worker] = await scene.node.json<{ address: string }[]>(["worker", "ls"]);
    return worker?.address ?? "";
  };
  for (const method of methods.filter(({ parent }) => elsewhere.test(parent.typeName))) {
    test(titleOf(method), async () => {
      const url = await place(method.parent.typeName);
      expect(url).toStartWith("https://127.0.0.1:");
      for (const [kind, token] of everyToken()) {
        // Without a certificate the worker's port does not even answer.
        const { code } = await callMethod(url, token, method, {}).catch(() => ({ code: "no answer" }));
        const joins = method.name === "JoinCluster" && kind === "worker";
        const expected = joins ? ["invalid_argument"] : ["unauthenticated", "permission_denied", "no answer"];
        expect([kind, expected.includes(code) ? "refused" : code]).toEqual([kind, "refused"]);
      }
    });
  }
});
