/**
 * How the kubelet says which images something is for: `HOST[:PORT][/PATH]` with globs in the host. Both have equally many
 * parts between dots and each part matches, the ports are equal, and the path is the beginning of the image's
 * (Kubernetes, CredentialProviderConfig v1, `matchImages`; `URLsMatch` of its credentialprovider package).
 */
export interface ImagePattern {
  readonly hostParts: readonly string[];
  readonly port: string;
  /** With the slash at its beginning; empty: any. */
  readonly path: string;
}

/** `undefined` when the text is no pattern. A scheme is passed over, and so is `/v1/` or `/v2/` as the whole path's start. */
export function parseImagePattern(text: string): ImagePattern | undefined {
  const match = /^(?:https?:\/\/)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._*?-]+)(?::(\d{1,5}))?(\/[^?#\s]*)?$/.exec(
    text,
  );
  if (match === null || text.length > 512) return undefined;
  const [, host = "", port = "", path = ""] = match;
  const rest = /^\/v[12]\//.test(path) ? path.slice(3) : path;
  return { hostParts: host.toLowerCase().split("."), port, path: rest === "/" ? "" : rest };
}

/** @param image `HOST[:PORT]/REPOSITORY`, or a registry alone: then only patterns without a path are for it */
export function matchesImage(pattern: ImagePattern, image: string): boolean {
  const target = parseImagePattern(image);
  return target !== undefined && matchesHost(pattern, target) && target.path.startsWith(pattern.path);
}

/** Whether a pattern is for some images of a registry. */
export function matchesRegistry(pattern: ImagePattern, registry: string): boolean {
  const target = parseImagePattern(registry);
  return target !== undefined && matchesHost(pattern, target);
}

function matchesHost(pattern: ImagePattern, target: ImagePattern): boolean {
  return (
    pattern.port === target.port &&
    pattern.hostParts.length === target.hostParts.length &&
    pattern.hostParts.every((part, index) => matchesGlob(part, target.hostParts[index] ?? ""))
  );
}

/** `*` is any run of characters, `?` is one. In time that grows with the product of the lengths, whatever is asked. */
function matchesGlob(glob: string, text: string): boolean {
  let [at, star, resume] = [0, -1, 0];
  let index = 0;
  while (index < text.length) {
    if (glob[at] === "*") {
      star = at;
      resume = index;
      at += 1;
    } else if (at < glob.length && (glob[at] === "?" || glob[at] === text[index])) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      at = star + 1;
      resume += 1;
      index = resume;
    } else {
      return false;
    }
  }
  while (glob[at] === "*") at += 1;
  return at === glob.length;
}
