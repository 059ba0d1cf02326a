import { Code, type HandlerContext } from "@connectrpc/connect";
import { logger } from "../std/log.ts";
import { identify, type VerifyToken } from "./authentication.ts";
import { accessTo } from "./authorization.ts";
import { addressOf } from "./caller-address.ts";
import { certificateOf } from "./certificate-authentication.ts";
import { toConnectError } from "./error.ts";
import { Throttle } from "./throttle.ts";

/**
 * Looks at a call whose body has not been read, and throws a ConnectError where nobody need read it. What it lets through
 * the interceptors look at: a gate keeps strangers from the node's memory, and decides nothing else.
 */
export type Gate = (
  call: Pick<HandlerContext, "service" | "method" | "requestHeader" | "values">,
) => Promise<void>;

const log = logger("rpc");
/** Anybody can make a call without a token: such calls must not fill the log. */
const unknownEveryMs = 60_000;

/** Who calls must have a token that counts. */
export function gateByToken(verify: VerifyToken): Gate {
  return gate(async ({ requestHeader, values }) => {
    await identify(requestHeader.get("authorization"), verify, values);
  });
}

/** Who calls must hold the key of a certificate of the cluster's, in its time. */
export const gateByCertificate: Gate = gate(async ({ values }) => void certificateOf(values));

/** For a server of both kinds: which of the two looks at a call is what the authorization table says of the method. */
export function gateByEither(token: Gate): Gate {
  return (call) =>
    accessTo(call.service.typeName, call.method.localName)?.by === "certificate"
      ? gateByCertificate(call)
      : token(call);
}

/** A call of an unknown caller is no event of the audit's, but a line in the log, once a minute for each address. */
function gate(look: Gate): Gate {
  const told = new Throttle();
  return async (call) => {
    try {
      await look(call);
    } catch (thrown) {
      const error = toConnectError(thrown);
      const address = addressOf(call.values) ?? "unknown";
      if (error.code === Code.Unauthenticated && told.lets(`unknown ${address}`, unknownEveryMs))
        log.warn("calls without a valid token or certificate are refused", {
          address,
          method: `${call.service.typeName}/${call.method.name}`,
        });
      throw error;
    }
  };
}
