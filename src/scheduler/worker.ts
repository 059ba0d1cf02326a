/**
 * `lost`: it stayed silent for too long; it is `ready` again once it registers again. `revoked`: its certificate counts no
 * more; it stays so.
 */
export type WorkerState = "ready" | "lost" | "revoked";

/** What a worker says of itself when it joins. */
export interface NewWorker {
  readonly id: string;
  readonly name: string;
  /** Where it serves WorkerService: `https://10.0.0.7:40001`. */
  readonly address: string;
  /** X25519 public key of this boot, 32 bytes: image credentials are sealed to it. */
  readonly bootPublicKey: Uint8Array;
  readonly bootNonce: string;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly version: string;
  /** Up to where it understands hand-overs. */
  readonly requestVersion: number;
}

export interface Worker extends NewWorker {
  readonly state: WorkerState;
  readonly cpuMillisUsed: number;
  readonly memoryBytesUsed: number;
  /** Containers placed on it that have not ended, and what they ask for together. */
  readonly containers: number;
  readonly cpuMillisPlaced: number;
  readonly memoryBytesPlaced: number;
  readonly lastHeartbeatAt: Date;
  readonly createdAt: Date;
  /** Of its latest certificate; undefined: it never had one. */
  readonly certificateNotAfter: Date | undefined;
}

/**
 * Whether it ever joined. Workers of earlier versions did not: nothing may be given to whoever answers at their addresses by
 * now, though an earlier scheduler beside this one may still hear from them.
 */
export function isCertified({ certificateNotAfter }: Pick<Worker, "certificateNotAfter">): boolean {
  return certificateNotAfter !== undefined;
}
