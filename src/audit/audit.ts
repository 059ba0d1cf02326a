/** Who did it. */
export interface AuditActor {
  /** A caller by his token, a worker by its certificate, or this process by itself. */
  readonly kind: "token" | "worker" | "node";
  readonly id: string;
  /** Of a worker: empty for the name that it has. */
  readonly name: string;
  readonly role?: string | undefined;
}

export type AuditTargetKind =
  | "endpoint"
  | "volume"
  | "code"
  | "secret"
  | "image"
  | "container"
  | "token"
  | "workspace"
  | "worker"
  | "key"
  | "webhook";

/** To what it was done. */
export interface AuditTarget {
  readonly kind: AuditTargetKind;
  readonly id?: string | undefined;
  readonly name?: string | undefined;
}

/** One thing that somebody did, or was not allowed to do. Never holds a value of a secret or a token. */
export interface AuditEvent {
  readonly actor: AuditActor;
  readonly workspaceId?: string | undefined;
  /** Where the id is not known, or the workspace is gone. Absent: the name that the id has now. */
  readonly workspaceName?: string | undefined;
  /** `secret.create`, `secret.use`, `container.run`, …: the target's kind and a verb. */
  readonly action: string;
  readonly target: AuditTarget;
  readonly outcome: "ok" | "denied" | "failed";
  /** Of what failed. */
  readonly code?: string | undefined;
  /** Of the caller's host; absent: nobody called. */
  readonly address?: string | undefined;
  readonly fields?: Readonly<Record<string, string>> | undefined;
}

/** Writes an event down. Resolves when it is kept; rejects when it cannot be. */
export type Audit = (event: AuditEvent) => Promise<void>;
