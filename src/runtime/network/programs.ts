import { RuntimeError } from "../error.ts";
import { findProgram } from "../oci-runtime.ts";

const packages: Readonly<Record<string, string>> = { ip: "iproute2" };

/**
 * A program of the host that private networks need: `ip`, or one of iptables.
 * @throws RuntimeError `network` where it is not installed
 */
export function findTool(name: string): string {
  try {
    return findProgram(name);
  } catch (cause) {
    throw new RuntimeError("network", `private networks need the program ${name}, which is not installed`, {
      cause,
      next: `Install Debian's ${packages[name] ?? "iptables"} on the worker, or run with --network none.`,
    });
  }
}
