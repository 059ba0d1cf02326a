/** What the host name of a private Amazon ECR registry says. */
export interface EcrHost {
  /** Twelve digits. */
  readonly account: string;
  readonly region: string;
  readonly fips: boolean;
  readonly dualStack: boolean;
  /** Of the partition's API: `amazonaws.com`, `amazonaws.com.cn`; dual-stack has names of its own. */
  readonly domain: string;
}

const hostPattern =
  /^(\d{12})\.dkr(?:\.ecr(-fips)?\.([a-z]{2}(?:-[a-z]+){1,3}-\d{1,2})\.(amazonaws\.com(?:\.cn)?)|-ecr(-fips)?\.([a-z]{2}(?:-[a-z]+){1,3}-\d{1,2})\.(on\.aws|on\.amazonwebservices\.com\.cn))$/;

/**
 * Account and region of a private ECR registry, from the whole host name and never from a part of it
 * (`….amazonaws.com.evil.com` is not AWS). `undefined` when it is none; a port makes it none.
 *
 * Names: Amazon ECR User Guide, "Private registry" and "Getting started with making requests over IPv6".
 */
export function parseEcrHost(registry: string): EcrHost | undefined {
  const match = hostPattern.exec(registry);
  if (match === null) return undefined;
  const dualStack = match[4] === undefined;
  const region = (dualStack ? match[6] : match[3]) ?? "";
  const domain = (dualStack ? match[7] : match[4]) ?? "";
  if (region.startsWith("cn-") !== domain.endsWith(".cn")) return undefined;
  const fips = (dualStack ? match[5] : match[2]) !== undefined;
  return { account: match[1] ?? "", region, fips, dualStack, domain };
}

/** Where the ECR API of the registry's region and partition is, after the same rules. */
export function ecrApiEndpoint(host: EcrHost): string {
  const service = host.fips ? "ecr-fips" : "ecr";
  if (host.domain === "on.aws") return `https://${service}.${host.region}.api.aws`;
  if (host.domain === "on.amazonwebservices.com.cn") {
    return `https://${service}.${host.region}.api.amazonwebservices.com.cn`;
  }
  return `https://${host.fips ? "ecr-fips" : "api.ecr"}.${host.region}.${host.domain}`;
}
