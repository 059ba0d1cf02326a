import type { NewContainer } from "../container/container.ts";
import { printable } from "../std/printable.ts";
import type { EndpointSpec } from "./endpoint.ts";
import { EndpointError } from "./error.ts";

/** What the operator allows every endpoint: `[endpoints]` of the configuration. */
export interface EndpointLimits {
  readonly bodyBytesMax: number;
  readonly containersMax: number;
  readonly queueMax: number;
}

/** A deployment as it is asked for: the same fields, in which 0 and empty mean the default. */
export type WantedSpec = EndpointSpec;

const dayMs = 86_400_000;
const hourMs = 3_600_000;
const concurrencyMax = 10_000;
const defaults = {
  port: 8000,
  requestTimeoutMs: 60_000,
  concurrency: { handler: 1, server: 100 },
  queueMax: 100,
  containersMax: 10,
  keepWarmMs: 60_000,
  startupTimeoutMs: 60_000,
};

/** A part of the path, and of it the part before the dot that a workspace's name may follow. */
const namePattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const handlerPattern = /^[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,15}:[A-Za-z_]\w{0,99}$/;

/** @throws EndpointError `bad_spec` */
export function checkName(name: string): void {
  if (namePattern.test(name)) return;
  throw badSpec(
    `${JSON.stringify(printable(name, 80))} cannot name an endpoint`,
    "Take at most 63 small letters, digits and hyphens, with a letter or a digit at both ends.",
  );
}

/**
 * What a deployment is made of, with every default worked out. `bodyBytesMax` 0 stays: it is the operator's limit, whatever
 * that is later.
 *
 * @throws EndpointError `bad_spec`, saying which field
 */
export function resolveSpec(wanted: WantedSpec, limits: EndpointLimits): EndpointSpec {
  checkProgram(wanted);
  checkNetwork(wanted);
  const containersMax = wanted.containersMax || Math.min(defaults.containersMax, limits.containersMax);
  const { handler: ofHandler, server } = defaults.concurrency;
  const spec: EndpointSpec = {
    ...wanted,
    port: within("port", wanted.port || defaults.port, 1, 65_535),
    requestTimeoutMs: within(
      "the request timeout in milliseconds",
      wanted.requestTimeoutMs || defaults.requestTimeoutMs,
      1,
      dayMs,
    ),
    concurrency: within(
      "concurrency",
      wanted.concurrency || (wanted.handler ? ofHandler : server),
      1,
      concurrencyMax,
    ),
    queueMax: within(
      "the queue",
      wanted.queueMax || Math.min(defaults.queueMax, limits.queueMax),
      1,
      limits.queueMax,
    ),
    containersMax: within("the most containers", containersMax, 1, limits.containersMax),
    containersMin: within("the fewest containers", wanted.containersMin, 0, containersMax),
    keepWarmMs: within("keep-warm in milliseconds", wanted.keepWarmMs || defaults.keepWarmMs, 1, dayMs),
    startupTimeoutMs: within(
      "the startup timeout in milliseconds",
      wanted.startupTimeoutMs || defaults.startupTimeoutMs,
      1,
      hourMs,
    ),
    bodyBytesMax: within("the most bytes of a body", wanted.bodyBytesMax, 0, limits.bodyBytesMax),
  };
  return spec;
}

/** What holds at this gateway, whose operator may allow less by now than when it was deployed. */
export function withLimits(spec: EndpointSpec, limits: EndpointLimits): EndpointSpec {
  const containersMax = Math.min(spec.containersMax, limits.containersMax);
  return {
    ...spec,
    containersMax,
    containersMin: Math.min(spec.containersMin, containersMax),
    queueMax: Math.min(spec.queueMax, limits.queueMax),
    bodyBytesMax: Math.min(spec.bodyBytesMax || limits.bodyBytesMax, limits.bodyBytesMax),
  };
}

/** Whether nothing would be different. Neither the order of fields counts, nor those that are not set. */
export function sameSpec(a: EndpointSpec, b: EndpointSpec): boolean {
  return canonical(a) === canonical(b);
}

/** A container of a deployment. */
export function containerOf(
  spec: EndpointSpec,
  { id, workspaceId }: { readonly id: string; readonly workspaceId: string },
): NewContainer {
  const { handler, concurrency, port, startupTimeoutMs } = spec;
  return {
    workspaceId,
    imageId: spec.imageId,
    reference: spec.reference,
    command: spec.command,
    env: spec.env,
    network: spec.network,
    eager: false,
    options: spec.options,
    cpuMillis: spec.cpuMillis,
    memoryBytes: spec.memoryBytes,
    deploymentId: id,
    serving: { port, startupTimeoutMs, concurrency },
    ...(handler === undefined ? {} : { handler: { ...handler, concurrency } }),
  };
}

function checkProgram({ handler, command, options }: WantedSpec): void {
  if (options.ports.length > 0)
    throw badSpec(
      "an endpoint publishes no ports",
      "It is reached through the gateway: leave the ports out.",
    );
  if (options.restart.kind !== "no")
    throw badSpec(
      "an endpoint has no restart policy",
      "Its containers are replaced by themselves: leave it out.",
    );
  if (options.terminal || options.stdin)
    throw badSpec("an endpoint has no terminal and no standard input", "Leave them out.");
  if (handler === undefined) return;
  if (!/^[0-9a-f]{64}$/.test(handler.codeSha256))
    throw badSpec(
      "the code's digest is no SHA-256 in small hex digits",
      "Upload the code first: UploadCode.",
    );
  if (!handlerPattern.test(handler.name))
    throw badSpec(
      `${JSON.stringify(printable(handler.name, 80))} names no handler`,
      "Write MODULE:FUNCTION, such as app:handler.",
    );
  if (command.length > 0 || options.entrypoint !== undefined)
    throw badSpec(
      "a handler is run by a runner of its own",
      "Leave command and entrypoint out, or the handler.",
    );
}

function checkNetwork({ network }: WantedSpec): void {
  if (network !== "none") return;
  throw badSpec(
    "an endpoint's containers have to be reached, and have no network",
    "Deploy it with --network private.",
  );
}

function within(what: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw badSpec(
    `${what} is ${value}; it must be between ${least} and ${most}`,
    "Give another number. The most bytes, containers and waiting requests are what the operator set: [endpoints].",
  );
}

function badSpec(message: string, next: string): EndpointError {
  return new EndpointError("bad_spec", message, { next });
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
