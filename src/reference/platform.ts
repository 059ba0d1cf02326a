import { arch, platform } from "node:os";
import { ImageReferenceError } from "./error.ts";

/** What an image was built for, in the terms of the OCI image index (GOOS, GOARCH, CPU variant). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

const partPattern = /^[a-z0-9_][a-z0-9_.-]{0,63}$/;

/** Names of machines as people write them (uname, Debian, Node.js) to GOARCH, as containerd normalises them. */
const architectures: Readonly<Record<string, readonly [architecture: string, variant?: string]>> = {
  x86_64: ["amd64"],
  "x86-64": ["amd64"],
  x64: ["amd64"],
  i386: ["386"],
  i686: ["386"],
  ia32: ["386"],
  aarch64: ["arm64"],
  armhf: ["arm", "v7"],
  armel: ["arm", "v6"],
  ppc64el: ["ppc64le"],
};

/** Parses `os/architecture[/variant]`, such as `linux/arm64/v8`. @throws ImageReferenceError `bad_platform` */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.trim().toLowerCase().split("/");
  const parts = [os, architecture, ...(variant === undefined ? [] : [variant])];
  if (os === undefined || architecture === undefined || rest.length > 0 || !parts.every(isPart)) {
    throw new ImageReferenceError("bad_platform", `${JSON.stringify(text.slice(0, 100))} is not a platform`, {
      next: "Write a platform as os/architecture or os/architecture/variant, such as linux/amd64 or linux/arm64/v8.",
    });
  }
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

/** The same platform in the one spelling that comparisons need: GOARCH names, and no variant where it is implied. */
export function normalizePlatform(given: Platform): Platform {
  const alias = architectures[given.architecture];
  const architecture = alias?.[0] ?? given.architecture;
  const variant = given.variant || alias?.[1];
  const implied = architecture === "arm64" && (variant === "v8" || variant === "8");
  const base = { os: given.os, architecture };
  if (variant === undefined || implied) return base;
  return { ...base, variant: architecture === "arm" && /^\d$/.test(variant) ? `v${variant}` : variant };
}

/** The platform of the machine that we run on. */
export function hostPlatform(): Platform {
  return normalizePlatform({ os: platform(), architecture: arch() });
}

/** The text that {@link parsePlatform} reads. */
export function formatPlatform(given: Platform): string {
  return [given.os, given.architecture, ...(given.variant === undefined ? [] : [given.variant])].join("/");
}

function isPart(part: string | undefined): boolean {
  return part !== undefined && partPattern.test(part);
}
