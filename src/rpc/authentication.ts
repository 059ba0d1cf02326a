import {
  Code,
  ConnectError,
  type ContextValues,
  createContextKey,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { accessTo, type Role } from "./authorization.ts";

export type { Role } from "./authorization.ts";

/** Who calls. */
export interface Caller {
  readonly tokenId: string;
  /** The token's, for people. */
  readonly name: string;
  /** Absent for tokens of the cluster itself. */
  readonly workspaceId: string | undefined;
  readonly role: Role;
}

const callerKey = createContextKey<Caller | undefined>(undefined, { description: "caller" });

/** Looks a bearer token up: its caller, or `undefined` when it is unknown, expired or revoked. */
export type VerifyToken = (token: string) => Promise<Caller | undefined>;

/** How long a stream goes on without another look at its token. */
const streamTrustMs = 1_000;

/**
 * Lets a call through only with a valid bearer token whose role the authorization table allows. A stream ends with the next
 * thing that it would say once its token counts no more, at most a second later.
 */
export function authenticate(verify: VerifyToken, trustMs: number = streamTrustMs): Interceptor {
  return (next) => async (request) => {
    const header = request.header.get("authorization");
    // Known by now where a gate has looked.
    const caller =
      findCaller(request.contextValues) ?? (await identify(header, verify, request.contextValues));
    assertAllowed(request.service.typeName, request.method, caller.role);
    const response = await next(request);
    if (!response.stream) return response;
    const again = async () => void (await verified(bearer(header), verify));
    return { ...response, message: whileTrue(response.message, again, trustMs) };
  };
}

function assertAllowed(
  service: string,
  method: { readonly name: string; readonly localName: string },
  role: Role,
): void {
  const access = accessTo(service, method.localName);
  if (access?.by === "token" && access.roles.includes(role)) return;
  const next =
    access?.by === "token"
      ? `It takes a token with the role ${access.roles.join(" or ")}.`
      : "It takes a certificate of the cluster.";
  throw new ConnectError(
    `a token with the role ${role} may not call ${service}/${method.name}`,
    Code.PermissionDenied,
    undefined,
    [{ desc: ErrorDetailSchema, value: { room: "rpc", code: "permission_denied", next } }],
  );
}

/** A stream's messages while `check` does not throw, which is asked again when its last answer is older than `trustMs`. */
async function* whileTrue<T>(
  messages: AsyncIterable<T>,
  check: () => Promise<void>,
  trustMs: number,
): AsyncIterable<T> {
  let checkedAt = performance.now();
  for await (const message of messages) {
    if (performance.now() - checkedAt >= trustMs) {
      await check();
      checkedAt = performance.now();
    }
    yield message;
  }
}

/** Who calls, by an Authorization header; kept with the call, for the audit also when it is refused later. */
export async function identify(
  header: string | null,
  verify: VerifyToken,
  values: ContextValues,
): Promise<Caller> {
  const caller = await verified(bearer(header), verify);
  values.set(callerKey, caller);
  return caller;
}

/** Who calls, if that is known by now. */
export function findCaller(values: ContextValues): Caller | undefined {
  return values.get(callerKey);
}

/** The caller of a request that {@link authenticate} let through. */
export function callerOf(context: HandlerContext): Caller {
  const caller = context.values.get(callerKey);
  if (caller === undefined) throw new ConnectError("the call was not authenticated", Code.Unauthenticated);
  return caller;
}

/** The workspace of the caller; tokens of the cluster have none. */
export function workspaceOf(context: HandlerContext): string {
  const { workspaceId } = callerOf(context);
  if (workspaceId === undefined) {
    throw new ConnectError("this token belongs to no workspace", Code.PermissionDenied);
  }
  return workspaceId;
}

async function verified(token: string, verify: VerifyToken): Promise<Caller> {
  const caller = await verify(token);
  if (caller === undefined) {
    throw new ConnectError("the token is unknown, expired or revoked", Code.Unauthenticated);
  }
  return caller;
}

function bearer(header: string | null): string {
  const token = bearerOf(header);
  if (token === undefined) throw new ConnectError("the call has no bearer token", Code.Unauthenticated);
  return token;
}

/** The token of an Authorization header, if it holds one (RFC 6750). */
export function bearerOf(header: string | null | undefined): string | undefined {
  return /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
}
