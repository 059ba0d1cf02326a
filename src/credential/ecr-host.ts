/** AWS's clouds; keys of one mean nothing in another. */
export type AwsPartition = "aws" | "aws-cn" | "aws-us-gov" | "aws-eusc";

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

/** An ECR registry, private or public, and where its cloud is asked for tokens. */
export interface EcrRegistry {
  /** `undefined`: ECR Public, which is one for all. */
  readonly account: string | undefined;
  readonly partition: AwsPartition;
  /** Whose API gives the tokens. */
  readonly region: string;
  readonly apiEndpoint: string;
  /** STS of the same region, by the same kind of endpoint. */
  readonly stsEndpoint: string;
}

const region = "([a-z]{2}(?:-[a-z]+){1,3}-\\d{1,2}|eusc(?:-[a-z]+){2}-\\d{1,2})";
const hostPattern = new RegExp(
  `^(\\d{12})\\.dkr(?:\\.ecr(-fips)?\\.${region}\\.(amazonaws\\.com|amazonaws\\.com\\.cn|amazonaws\\.eu)` +
    `|-ecr(-fips)?\\.${region}\\.(on\\.aws|on\\.amazonwebservices\\.com\\.cn|on\\.amazonwebservices\\.eu))$`,
);

/** What the API's dual-stack names end with, by what the registry's end with. */
const dualStackApi: Readonly<Record<string, string>> = {
  "on.aws": "api.aws",
  "on.amazonwebservices.com.cn": "api.amazonwebservices.com.cn",
  "on.amazonwebservices.eu": "api.amazonwebservices.eu",
};

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
  const name = (dualStack ? match[6] : match[3]) ?? "";
  const domain = (dualStack ? match[7] : match[4]) ?? "";
  if (name.startsWith("cn-") !== domain.endsWith(".cn")) return undefined;
  if (name.startsWith("eusc-") !== domain.endsWith(".eu")) return undefined;
  const fips = (dualStack ? match[5] : match[2]) !== undefined;
  return { account: match[1] ?? "", region: name, fips, dualStack, domain };
}

/** Where the ECR API of the registry's region and partition is ("Amazon ECR endpoints and quotas", AWS General Reference). */
export function ecrApiEndpoint(host: EcrHost): string {
  if (host.dualStack) {
    return `https://${host.fips ? "ecr-fips" : "ecr"}.${host.region}.${dualStackApi[host.domain]}`;
  }
  return `https://${host.fips ? "ecr-fips" : "api.ecr"}.${host.region}.${host.domain}`;
}

/** STS of the registry's region ("AWS Security Token Service endpoints"); GovCloud's plain name is its FIPS one. */
function stsEndpoint(host: EcrHost): string {
  const plain = !host.fips || (partitionOf(host.region) === "aws-us-gov" && !host.dualStack);
  const domain = host.dualStack ? dualStackApi[host.domain] : host.domain;
  return `https://${plain ? "sts" : "sts-fips"}.${host.region}.${domain}`;
}

export function partitionOf(regionName: string): AwsPartition {
  if (regionName.startsWith("cn-")) return "aws-cn";
  if (regionName.startsWith("us-gov-")) return "aws-us-gov";
  return regionName.startsWith("eusc-") ? "aws-eusc" : "aws";
}

/** Where roles are assumed. */
export type StsPlace = Pick<EcrRegistry, "region" | "stsEndpoint">;

/** STS of a partition's first region; its sessions are good in all others (IAM User Guide, "Manage AWS STS in a Region"). */
export const homeSts: Readonly<Record<AwsPartition, StsPlace>> = {
  aws: { region: "us-east-1", stsEndpoint: "https://sts.us-east-1.amazonaws.com" },
  "aws-cn": { region: "cn-north-1", stsEndpoint: "https://sts.cn-north-1.amazonaws.com.cn" },
  "aws-us-gov": { region: "us-gov-west-1", stsEndpoint: "https://sts.us-gov-west-1.amazonaws.com" },
  "aws-eusc": { region: "eusc-de-east-1", stsEndpoint: "https://sts.eusc-de-east-1.amazonaws.eu" },
};

/** Both names of ECR Public, and where its one API is (Amazon ECR Public User Guide, "Making requests"). */
const publicRegistries: Readonly<Record<string, EcrRegistry>> = {
  "public.ecr.aws": {
    account: undefined,
    partition: "aws",
    region: "us-east-1",
    apiEndpoint: "https://api.ecr-public.us-east-1.amazonaws.com",
    stsEndpoint: "https://sts.us-east-1.amazonaws.com",
  },
  "ecr-public.aws.com": {
    account: undefined,
    partition: "aws",
    region: "us-east-1",
    apiEndpoint: "https://ecr-public.us-east-1.api.aws",
    stsEndpoint: "https://sts.us-east-1.api.aws",
  },
};

/** The ECR registry of this name, private or public; `undefined` when it is none. */
export function parseEcrRegistry(registry: string): EcrRegistry | undefined {
  if (Object.hasOwn(publicRegistries, registry)) return publicRegistries[registry];
  const host = parseEcrHost(registry);
  if (host === undefined) return undefined;
  return {
    account: host.account,
    partition: partitionOf(host.region),
    region: host.region,
    apiEndpoint: ecrApiEndpoint(host),
    stsEndpoint: stsEndpoint(host),
  };
}

/** What a token of this registry opens, for those who are shown one: ECR has none that are narrower. */
export function ecrScope(registry: string): string {
  const account = parseEcrRegistry(registry)?.account;
  return account === undefined
    ? "everything in ECR Public that the keys may pull: its tokens are no narrower"
    : `every repository of account ${account}, and of others, that the keys may pull: ECR's tokens are no narrower`;
}
