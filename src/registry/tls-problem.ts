import { RegistryError, type Where } from "./error.ts";

const tlsCodes =
  /^(CERT_|ERR_TLS|ERR_SSL|ERR_BORINGSSL|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$|OUT_OF_VALIDITY|INVALID_)/;

/** Whether a platform's error code speaks of TLS (OpenSSL's `X509_V_ERR_…` without the prefix, Node's `ERR_TLS_…`). */
export function isTlsCode(code: string): boolean {
  return tlsCodes.test(code);
}

/** What is wrong with the secure connection to a host, by the platform's error code. */
export function tlsProblem(code: string, host: string, where: Where, plainHint: string): RegistryError {
  const { what, next } = describe(code, host, plainHint);
  return new RegistryError("tls", `${what} (${code})`, where, { next });
}

function describe(code: string, host: string, plainHint: string): { what: string; next: string } {
  switch (code) {
    case "CERT_HAS_EXPIRED":
      return {
        what: `the certificate of ${host} has expired`,
        next: "Have the registry's operator renew it, or check this machine's clock.",
      };
    case "CERT_NOT_YET_VALID":
      return {
        what: `the certificate of ${host} is not valid yet`,
        next: "Check this machine's clock, then the registry's certificate.",
      };
    case "ERR_TLS_CERT_ALTNAME_INVALID":
    case "HOSTNAME_MISMATCH":
      return {
        what: `the certificate of ${host} is for another host`,
        next: "Check the host's name; the certificate must name it, and so must its address (DNS, proxy).",
      };
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      return {
        what: `the certificate of ${host} is from an authority that this machine does not know`,
        next: `A private authority's certificate belongs in the node's configuration: ca_file under [registry.hosts."${host}"].`,
      };
    case "EPROTO":
      return { what: `${host} does not answer with TLS 1.2 or later`, next: plainHint };
    default:
      return { what: `the secure connection to ${host} failed`, next: `Check the certificate of ${host}.` };
  }
}
