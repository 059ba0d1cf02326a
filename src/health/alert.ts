/** What people are told of. */
export type AlertKind = "failing" | "recovered" | "expiring";

/** Days before its end at which a credential is spoken of, the nearest first. */
export const expiryThresholdDays: readonly number[] = [1, 3, 14];
const dayMs = 86_400_000;
/** Ids that a body holds at most; the totals say how many there are. */
export const affectedMax = 100;
const namedMax = 3;

/** A secret as an alert is made of it: what stood in its row of health at that moment, and what depends on it. */
export interface AlertBody {
  readonly workspace: string;
  readonly secret: { readonly id: string; readonly name: string; readonly version: number };
  readonly registry: string;
  readonly state: string;
  readonly reason: string | null;
  readonly code: string | null;
  readonly next: string | null;
  /** RFC 3339. */
  readonly since: string;
  readonly expiresAt: string | null;
  readonly images: readonly { readonly id: string; readonly reference: string }[];
  readonly imagesTotal: number;
  /** Ids of those that have not ended. */
  readonly containers: readonly string[];
  readonly containersTotal: number;
}

/** The threshold that a credential has crossed: the smallest number of days within which it ends; undefined: none, or it has ended. */
export function expiryThreshold(expiresAt: Date, nowMs: number): number | undefined {
  const leftMs = expiresAt.getTime() - nowMs;
  return leftMs <= 0 ? undefined : expiryThresholdDays.find((days) => leftMs <= days * dayMs);
}

/** What happened, to what, what it stops, and what to do: for people, in one paragraph. */
export function alertMessage(kind: AlertKind, body: AlertBody, nowMs: number): string {
  const { secret, registry, workspace } = body;
  const subject = `The secret ${secret.name} (version ${secret.version}) of the workspace ${workspace} for ${registry}`;
  return [`${subject} ${predicate(kind, body, nowMs)}`, usage(kind, body), advice(kind, body)].join(" ");
}

function predicate(kind: AlertKind, body: AlertBody, nowMs: number): string {
  if (kind === "recovered") return "works again.";
  if (kind === "failing") {
    const reason = body.reason === null ? "" : `: ${body.reason.replace(/\.$/, "")}`;
    return `has been failing since ${toMinute(body.since)}${reason}.`;
  }
  const at = body.expiresAt ?? body.since;
  return `ends in ${left(Date.parse(at) - nowMs)}, at ${toMinute(at)}.`;
}

function usage(kind: AlertKind, body: AlertBody): string {
  const { imagesTotal, containersTotal } = body;
  if (imagesTotal === 0) return "No image uses it.";
  const references = body.images.map(({ reference }) => reference);
  const images = `${counted(imagesTotal, "image")} (${few(references, imagesTotal)})`;
  const running =
    containersTotal === 0
      ? "no container that has not ended"
      : `${counted(containersTotal, "container")} that ${containersTotal === 1 ? "has" : "have"} not ended (${few(body.containers, containersTotal)})`;
  const effect =
    kind === "failing" ? " New runs of these images fail, and reads of what is not cached yet." : "";
  return `It is used by ${images} and ${running}.${effect}`;
}

function advice(kind: AlertKind, { next, secret }: AlertBody): string {
  if (kind === "recovered") return "There is nothing to do.";
  if (kind === "expiring") return `Renew it before: oci-node secret update ${secret.name}`;
  return next ?? `Give it a credential that works: oci-node secret update ${secret.name}`;
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function few(names: readonly string[], total: number): string {
  const named = names.slice(0, namedMax);
  const more = total - named.length;
  return more > 0 ? `${named.join(", ")} and ${more} more` : named.join(", ");
}

/** Rounded up: what ends in 13.5 days ends within 14. */
function left(timeMs: number): string {
  const hours = Math.ceil(timeMs / 3_600_000);
  return hours > 48 ? `${Math.ceil(timeMs / dayMs)} days` : counted(hours, "hour");
}

function toMinute(time: string): string {
  return `${time.slice(0, 16).replace("T", " ")} UTC`;
}
