import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, type Interceptor } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { logger } from "../std/log.ts";
import {
  type AuditRow,
  audited,
  type CallTarget,
  type ReadOnlyRow,
  type TargetKind,
  unaudited,
} from "./audit-table.ts";
import { findCaller } from "./authentication.ts";
import { addressOf } from "./caller-address.ts";
import { findCertifiedWorker } from "./certificate-authentication.ts";
import { toConnectError } from "./error.ts";
import { Throttle } from "./throttle.ts";

/** A call as the audit has it; the audit room's `AuditEvent` takes it as it is. */
export interface CallEvent {
  readonly actor: {
    readonly kind: "token" | "worker";
    readonly id: string;
    readonly name: string;
    readonly role: string;
  };
  readonly workspaceId?: string | undefined;
  readonly workspaceName?: string | undefined;
  readonly action: string;
  readonly target: {
    readonly kind: TargetKind;
    readonly id?: string | undefined;
    readonly name?: string | undefined;
  };
  readonly outcome: "ok" | "denied" | "failed";
  readonly code?: string | undefined;
  readonly address?: string | undefined;
  readonly fields?: Readonly<Record<string, string>> | undefined;
}

/** Where calls are written down: the audit room's trail. */
export interface CallAudit {
  /** Rejects with an error for the caller when nothing could be written now. */
  ensureWritable(event: CallEvent): Promise<void>;
  /** Rejects with an error for the caller. */
  record(event: CallEvent): Promise<void>;
  /** Never rejects. */
  note(event: CallEvent): Promise<void>;
}

const log = logger("rpc");
const rows = new Map<DescMethod, AuditRow>(audited.map((row) => [row.method, row]));
const readOnlyRows = new Map<DescMethod, ReadOnlyRow>(unaudited.map((row) => [row.method, row]));
/** Anybody can make a call without a token: such calls must fill neither the table nor the log. */
const unknownEveryMs = 60_000;
/** Whoever has a token can be refused as often as he calls: of one kind it is written down so often. */
const deniedEveryMs = 1_000;

interface Call {
  readonly method: DescMethod;
  readonly values: ContextValues;
  readonly row: AuditRow | ReadOnlyRow;
  /** Of a stream the first, absent until it is there. */
  request: unknown;
  /** Of a stream the last. */
  response: unknown;
}

/**
 * Writes down each call that changes something, and each that is refused. The outermost of a server's interceptors: it sees
 * what the caller is told; `authenticate` below it says who that is, and {@link auditFirst} stands below that. A call of an
 * unknown caller is no event, but a line in the log, once a minute for each address; where there is a gate, it writes that.
 */
export function auditCalls(audit: CallAudit, now?: () => number): Interceptor {
  const repeated = new Throttle(now);
  const write = async (call: Call, error?: ConnectError): Promise<void> => {
    const { row } = call;
    const changes = "strict" in row;
    if (!changes && error?.code !== Code.PermissionDenied && error?.code !== Code.Unauthenticated) return;
    const event = eventOf(call, error);
    if (event === undefined) {
      tellOfUnknown(call, repeated);
      return;
    }
    if (row.everyMs > 0 && !repeated.lets(keyOf(event), row.everyMs)) return;
    if (
      event.outcome === "denied" &&
      !repeated.lets(`denied ${event.actor.id} ${event.action}`, deniedEveryMs)
    )
      return;
    if (error === undefined && changes && row.strict) await audit.record(event);
    // Nobody waits for the disk with what need not be seen: it is on its way.
    else if (error === undefined) void audit.note(event);
    else await audit.note(event);
  };
  return (next) => async (request) => {
    const row = rows.get(request.method) ?? readOnlyRows.get(request.method);
    if (row === undefined) return await next(request);
    const call: Call = {
      method: request.method,
      values: request.contextValues,
      row,
      request: request.stream ? undefined : request.message,
      response: undefined,
    };
    const failed = async (thrown: unknown): Promise<ConnectError> => {
      const error = toConnectError(thrown);
      await write(call, error);
      return error;
    };
    try {
      if (!request.stream) {
        const response = await next(request);
        if (!response.stream) call.response = response.message;
        await write(call).catch(rethrow);
        return response;
      }
      const message = seen(request.message, (one) => {
        call.request ??= one;
      });
      const response = await next({ ...request, message });
      if (!response.stream) return response;
      return { ...response, message: toEnd(response.message, call, request.signal, write) };
    } catch (thrown) {
      if (thrown instanceof Written) throw thrown.error;
      throw await failed(thrown);
    }
  };
}

/** Below `authenticate`: what must not happen unseen is not begun while nothing can be written. */
export function auditFirst(audit: CallAudit): Interceptor {
  return (next) => async (request) => {
    const row = rows.get(request.method);
    const event = row?.strict
      ? eventOf({
          method: request.method,
          values: request.contextValues,
          row,
          request: request.stream ? undefined : request.message,
          response: undefined,
        })
      : undefined;
    if (event !== undefined) await audit.ensureWritable(event);
    return await next(request);
  };
}

/** The call was done; only its record failed, which is not to be recorded in its turn. */
class Written {
  readonly error: ConnectError;

  constructor(error: ConnectError) {
    this.error = error;
  }
}

function rethrow(thrown: unknown): never {
  throw new Written(toConnectError(thrown));
}

async function* seen<T>(messages: AsyncIterable<T>, see: (message: T) => void): AsyncIterable<T> {
  for await (const message of messages) {
    see(message);
    yield message;
  }
}

/** The messages of a stream; its end, however it comes, is written down once. */
async function* toEnd<T>(
  messages: AsyncIterable<T>,
  call: Call,
  signal: AbortSignal,
  write: (call: Call, error?: ConnectError) => Promise<void>,
): AsyncIterable<T> {
  let written: Promise<void> | undefined;
  const end = (error?: ConnectError) => {
    written ??= write(call, error);
    return written;
  };
  const left = () => {
    end(new ConnectError("the caller left", Code.Canceled)).catch(() => undefined);
  };
  signal.addEventListener("abort", left, { once: true });
  try {
    for await (const message of seen(messages, (one) => {
      call.response = one;
    }))
      yield message;
  } catch (thrown) {
    await end(toConnectError(thrown));
    throw thrown;
  } finally {
    signal.removeEventListener("abort", left);
    // Also where nobody pulls any more; after an error this is a no-op.
    if (signal.aborted) left();
  }
  await end().catch((thrown: unknown) => {
    throw toConnectError(thrown);
  });
}

function eventOf({ values, row, request, response }: Call, error?: ConnectError): CallEvent | undefined {
  const actor = actorOf(values);
  if (actor === undefined) return undefined;
  const about: About = "strict" in row ? aboutOf(row, request, response) : {};
  const code = error === undefined ? undefined : codeOf(error);
  return {
    actor,
    workspaceId: findCaller(values)?.workspaceId,
    ...about,
    action: row.action,
    target: {
      ...(actor.kind === "worker" && row.kind === "worker" ? { id: actor.id } : {}),
      kind: row.kind,
      ...about.target,
    },
    outcome: error === undefined ? "ok" : error.code === Code.PermissionDenied ? "denied" : "failed",
    ...(code === undefined ? {} : { code }),
    address: addressOf(values),
  };
}

function actorOf(values: ContextValues): CallEvent["actor"] | undefined {
  const caller = findCaller(values);
  if (caller !== undefined)
    return { kind: "token", id: caller.tokenId, name: caller.name, role: caller.role };
  const worker = findCertifiedWorker(values);
  return worker === undefined ? undefined : { kind: "worker", id: worker, name: "", role: "worker" };
}

type About = Partial<Pick<CallEvent, "workspaceId" | "workspaceName" | "fields">> & { target?: CallTarget };

function aboutOf(row: AuditRow, request: unknown, response: unknown): About {
  // A stream that was refused: nobody has read what was asked.
  if (request === undefined) return {};
  const [asked, answered] = [request as never, response as never];
  const { id, name } = row.workspace?.(asked, answered) ?? {};
  const fields = Object.entries(row.fields(asked, answered)).flatMap(([field, value]) =>
    value === undefined || value === "" ? [] : [[field, String(value)] as const],
  );
  return {
    target: row.target(asked, answered),
    ...(id === undefined ? {} : { workspaceId: id }),
    ...(name === undefined ? {} : { workspaceName: name }),
    fields: Object.fromEntries(fields),
  };
}

/** The room's own code where there is one, else Connect's: `not_found`, `permission_denied`. */
function codeOf(error: ConnectError): string {
  const [detail] = error.findDetails(ErrorDetailSchema);
  return detail?.code ?? Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase();
}

function keyOf({ actor, action, target, outcome, code }: CallEvent): string {
  return JSON.stringify([actor.id, action, target.id, target.name, outcome, code]);
}

function tellOfUnknown({ method, values }: Call, repeated: Throttle): void {
  const address = addressOf(values) ?? "unknown";
  if (!repeated.lets(`unknown ${address}`, unknownEveryMs)) return;
  log.warn("calls without a valid token or certificate are refused", {
    address,
    method: `${method.parent.typeName}/${method.name}`,
  });
}
