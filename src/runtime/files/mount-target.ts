import { RuntimeError } from "../error.ts";

const pathBytesMax = 4095;
/** What the container's own file systems are; only memory at /dev/shm may be another. */
const kernelOwned = /^\/(proc|sys|dev)(\/|$)/;

/**
 * Checks where in a container something is to be mounted; gives the path without doubled and trailing slashes. Links in
 * the image are followed by the runtime, inside of the container's root.
 * @throws RuntimeError `bad_config`
 */
export function mountTarget(path: string, what: string): string {
  const wrong = wrongTarget(path);
  if (wrong === undefined) return path.replace(/\/+/g, "/").replace(/\/$/, "");
  const shown = JSON.stringify(path.length > 200 ? `${path.slice(0, 200)}…` : path);
  throw new RuntimeError("bad_config", `${what} cannot be mounted at ${shown}: the path ${wrong}`, {
    next: "Name another place, such as /data.",
  });
}

function wrongTarget(path: string): string | undefined {
  if (!path.startsWith("/")) return "is not absolute";
  if (path.includes("\0")) return "has a NUL in it";
  if (Buffer.byteLength(path) > pathBytesMax) return "is too long";
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.length === 0) return "is the root directory";
  if (parts.includes("..") || path.split("/").includes(".")) return "has . or .. in it";
  const plain = `/${parts.join("/")}`;
  return kernelOwned.test(plain) && plain !== "/dev/shm" ? "belongs to the system" : undefined;
}

/** How deep a target is: what lies above another is mounted before it. */
export function depthOf(target: string): number {
  return target.split("/").length;
}
