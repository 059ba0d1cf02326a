import { IndexError } from "./error.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";

const whiteoutPrefix = ".wh.";
const opaqueName = ".wh..wh..opq";
const metadataPrefix = ".wh..wh.";

/**
 * A name as an index holds it: no leading or trailing `/`, no `.` and no empty parts; `""` is the root. An absolute
 * name is one relative to the root. Names are latin1 text, one character per byte.
 *
 * @throws {IndexError} `bad_tar` for a `..` part or a NUL, `limit_exceeded` for what Linux could not hold
 */
export function cleanName(name: string, limits: IndexLimits): string {
  checkLimit(limits, "pathBytesMax", name.length, () => `the path ${quoteName(name)}`);
  if (name.includes("\0")) throw badName(name, "it holds a NUL");
  if (isClean(name) && name.length <= limits.nameBytesMax) return name;
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  for (const part of parts) {
    if (part === "..") throw badName(name, "it holds `..`, which could leave the image");
    checkLimit(limits, "nameBytesMax", part.length, () => `a part of the path ${quoteName(name)}`);
  }
  return parts.join("/");
}

/** Cheap test that lets most names through unsplit. */
function isClean(name: string): boolean {
  return !/(^|\/)\.{0,2}(\/|$)/.test(name);
}

/** What a cleaned path means in a layer (OCI image layer specification, "Whiteouts"). */
export type LayerPath =
  | { readonly kind: "entry"; readonly path: string }
  | { readonly kind: "whiteout"; readonly path: string }
  | { readonly kind: "opaque"; readonly path: string }
  | { readonly kind: "ignored" };

/** @throws {IndexError} `bad_tar` for a whiteout of nothing, of `.` or of `..` */
export function readLayerPath(path: string): LayerPath {
  if (!path.includes(whiteoutPrefix)) return { kind: "entry", path };
  const slash = path.lastIndexOf("/");
  const folder = path.slice(0, Math.max(slash, 0));
  const base = path.slice(slash + 1);
  // aufs keeps its own files under such names; what is inside of such a folder is aufs' as well.
  if (folder !== "" && folder.split("/").some((part) => part.startsWith(metadataPrefix)))
    return { kind: "ignored" };
  if (base === opaqueName) return { kind: "opaque", path: folder };
  if (base.startsWith(metadataPrefix)) return { kind: "ignored" };
  if (!base.startsWith(whiteoutPrefix)) return { kind: "entry", path };
  const target = base.slice(whiteoutPrefix.length);
  if (target === "" || target === "." || target === "..") throw badName(path, "it is a whiteout of no name");
  return { kind: "whiteout", path: folder === "" ? target : `${folder}/${target}` };
}

/** A name for a message: its bytes read as UTF-8, in quotes, control characters escaped, cut when long. */
export function quoteName(name: string): string {
  const shown = Buffer.from(name.slice(0, 200), "latin1").toString("utf8");
  return `${JSON.stringify(shown)}${name.length > 200 ? "…" : ""}`;
}

export function badName(name: string, why: string): IndexError {
  return new IndexError("bad_tar", `the layer's entry ${quoteName(name)} is refused: ${why}`, {
    next: "Check where this image comes from, and push it again.",
  });
}
