/** What a container asks for. Zero: nothing in particular. */
export interface Demand {
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  /** `linux/amd64`: a worker of another platform cannot run it. */
  readonly platform: string;
  readonly manifestDigest: string;
  /** Those of its volumes that are on a worker already. */
  readonly volumes: readonly PlacedVolume[];
  /** What its worker has to understand, so that it leaves nothing out. */
  readonly requestVersion: number;
}

/** A volume with a name, and how the worker is that has it. `gone`: it counts no more, and never will. */
export interface PlacedVolume {
  readonly name: string;
  readonly workerId: string;
  readonly worker: "there" | "gone";
}

/** A worker as placement sees it. */
export interface Candidate {
  readonly id: string;
  readonly platform: string;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly cpuMillisUsed: number;
  readonly memoryBytesUsed: number;
  readonly containers: number;
  readonly requestVersion: number;
  /** Images that it has run and so has, at least in part, in its cache. */
  readonly manifestDigests: ReadonlySet<string>;
}

export type Placement =
  | { readonly kind: "placed"; readonly workerId: string }
  | { readonly kind: "wait"; readonly reason: string }
  | { readonly kind: "impossible"; readonly reason: string };

/**
 * Chooses a worker: one that has room, of the right platform; among those one that has the image, then the one that
 * stays the least loaded, then the smallest id. It has to understand all that the container is run with. With a volume it is the worker that has that, and no other. Pure: the same input
 * gives the same answer.
 *
 * `impossible` means that no worker, even idle, could ever take it; `wait` that none can now.
 */
export function place(demand: Demand, ready: readonly Candidate[]): Placement {
  const never = refusal(demand.volumes);
  if (never !== undefined) return { kind: "impossible", reason: never };
  const [volume] = demand.volumes;
  if (volume === undefined) {
    if (ready.length === 0) return { kind: "wait", reason: "no worker is ready" };
    const told = {
      runsNot: "no worker runs",
      hasNot: "no worker has",
      all: "every worker",
      fit: "every worker that could take it",
    };
    return choose(demand, ready, told);
  }
  const its = ready.filter(({ id }) => id === volume.workerId);
  const where = `its volume ${volume.name} is on worker ${volume.workerId}, which`;
  if (its.length === 0) return { kind: "wait", reason: `${where} is away` };
  return choose(demand, its, {
    runsNot: `${where} does not run`,
    hasNot: `${where} has not`,
    all: where,
    fit: where,
  });
}

function choose(
  demand: Demand,
  workers: readonly Candidate[],
  told: { readonly runsNot: string; readonly hasNot: string; readonly all: string; readonly fit: string },
): Placement {
  const suited = workers.filter((worker) => samePlatform(worker.platform, demand.platform));
  if (suited.length === 0) return { kind: "impossible", reason: `${told.runsNot} ${demand.platform}` };
  const large = suited.filter(
    (worker) => worker.cpuMillis >= demand.cpuMillis && worker.memoryBytes >= demand.memoryBytes,
  );
  if (large.length === 0) {
    const reason = `${told.hasNot} as much CPU and memory as the container asks for`;
    return { kind: "impossible", reason };
  }
  // One that is upgraded will do: until then it would leave out, without a word, what it does not know.
  const knowing = large.filter((worker) => worker.requestVersion >= demand.requestVersion);
  if (knowing.length === 0) {
    const reason = `${told.fit} is of an earlier version, which would leave out some of what the container is run with: upgrade it`;
    return { kind: "wait", reason };
  }
  const free = knowing.filter(
    (worker) =>
      worker.cpuMillis - worker.cpuMillisUsed >= demand.cpuMillis &&
      worker.memoryBytes - worker.memoryBytesUsed >= demand.memoryBytes,
  );
  if (free.length === 0) return { kind: "wait", reason: `${told.all} is full` };
  const [best] = [...free].sort((a, b) => compare(a, b, demand));
  return { kind: "placed", workerId: (best as Candidate).id };
}

/** Why there can be no worker for a container with these volumes. */
function refusal(volumes: readonly PlacedVolume[]): string | undefined {
  const [first] = volumes;
  const other = volumes.find(({ workerId }) => workerId !== first?.workerId);
  const gone = volumes.find(({ worker }) => worker === "gone");
  if (gone !== undefined)
    return `its volume ${gone.name} was on worker ${gone.workerId}, which is revoked: give it up with \`oci-node volume rm ${gone.name}\``;
  if (first === undefined || other === undefined) return undefined;
  return `its volumes ${first.name} and ${other.name} are on different workers, ${first.workerId} and ${other.workerId}: use those of one`;
}

function samePlatform(worker: string, image: string): boolean {
  const [workerOs, workerArchitecture] = worker.split("/");
  const [os, architecture] = image.split("/");
  return workerOs === os && workerArchitecture === architecture;
}

function compare(a: Candidate, b: Candidate, demand: Demand): number {
  const warm =
    Number(b.manifestDigests.has(demand.manifestDigest)) -
    Number(a.manifestDigests.has(demand.manifestDigest));
  if (warm !== 0) return warm;
  const load = loadAfter(a, demand) - loadAfter(b, demand);
  if (load !== 0) return load;
  if (a.containers !== b.containers) return a.containers - b.containers;
  return a.id < b.id ? -1 : 1;
}

/** The scarcer of CPU and memory, as a share in use, once the container were there. */
function loadAfter(worker: Candidate, demand: Demand): number {
  return Math.max(
    (worker.cpuMillisUsed + demand.cpuMillis) / Math.max(1, worker.cpuMillis),
    (worker.memoryBytesUsed + demand.memoryBytes) / Math.max(1, worker.memoryBytes),
  );
}
