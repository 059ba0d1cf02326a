import { createHash, timingSafeEqual, X509Certificate } from "node:crypto";
import { ClusterError } from "./error.ts";

/** What a host joins with: the token, and which authority it may be shown to. */
export interface JoinToken {
  /** `ocn_…`: what the scheduler is shown. */
  readonly token: string;
  /** SHA-256 (hex) of the certificate (DER) of the authority that must have signed the scheduler's. */
  readonly authority: string;
}

/** An authority of the cluster, as the world sees it. */
export interface TrustedAuthority {
  /** SHA-256 (hex) of the certificate's DER. */
  readonly id: string;
  /** PEM. */
  readonly certificate: string;
}

/**
 * What `token create --role worker` prints: the token, a point, and the SHA-256 of the cluster's authority in base64url. By
 * that a host knows the cluster before it sends the token to anybody.
 *
 * @param authorities the newest, which signs, first
 */
export function formatJoinToken(token: string, authorities: readonly Pick<TrustedAuthority, "id">[]): string {
  const [signing] = authorities;
  if (signing === undefined) throw new ClusterError("wrong_authority", "the cluster has no authority");
  return `${token}.${Buffer.from(signing.id, "hex").toString("base64url")}`;
}

/** @param from where it stands, for the error: a path. @throws ClusterError `bad_token` */
export function parseJoinToken(text: string, from: string): JoinToken {
  const match = /^(ocn_[A-Za-z0-9_-]{43})(?:\.([A-Za-z0-9_-]{43}))?$/.exec(text.trim());
  const [, token, pin] = match ?? [];
  if (token !== undefined && pin !== undefined) {
    return { token, authority: Buffer.from(pin, "base64url").toString("hex") };
  }
  const what = token === undefined ? "holds no join token" : "holds a token without its cluster's authority";
  throw new ClusterError("bad_token", `${from} ${what}: nothing was sent to anybody`, {
    next: "Put there what `oci-node token create --role worker` prints, all of it: ocn_….…",
  });
}

/**
 * The authority that a join token names, out of what a scheduler gives. Others beside it count for nothing yet: whoever
 * stands between could have added them. Throws ClusterError `wrong_authority`.
 *
 * @param pem certificates, one after the other
 */
export function pinnedAuthority(pem: string, pin: string, url: string): TrustedAuthority {
  for (const { id, certificate } of authoritiesIn(pem)) {
    if (timingSafeEqual(Buffer.from(id, "hex"), Buffer.from(pin, "hex"))) return { id, certificate };
  }
  throw new ClusterError(
    "wrong_authority",
    `${url} is not of the cluster that the join token is for: the token was not sent`,
    {
      next: "Check worker.scheduler_url, and that the token was made by this cluster; a proxy that opens TLS cannot stand between.",
    },
  );
}

/** The certificates in a PEM text; what is none is passed over. */
export function authoritiesIn(pem: string): TrustedAuthority[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.flatMap((certificate) => {
    try {
      const { raw } = new X509Certificate(certificate);
      return [{ id: authorityId(raw), certificate: `${certificate}\n` }];
    } catch {
      return [];
    }
  });
}

/** SHA-256 (hex) of a certificate's DER. */
export function authorityId(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}
