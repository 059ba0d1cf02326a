import { describe, expect, test } from "bun:test";
import { ecrApiEndpoint, ecrScope, parseEcrHost, parseEcrRegistry } from "./ecr-host.ts";

describe("the host name of an ECR registry", () => {
  const host = {
    account: "123456789012",
    region: "us-east-1",
    fips: false,
    dualStack: false,
    domain: "amazonaws.com",
  };
  test.each([
    ["123456789012.dkr.ecr.us-east-1.amazonaws.com", host, "https://api.ecr.us-east-1.amazonaws.com"],
    [
      "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
      { ...host, region: "us-gov-west-1" },
      "https://api.ecr.us-gov-west-1.amazonaws.com",
    ],
    [
      "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
      { ...host, fips: true },
      "https://ecr-fips.us-east-1.amazonaws.com",
    ],
    [
      "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
      { ...host, region: "cn-north-1", domain: "amazonaws.com.cn" },
      "https://api.ecr.cn-north-1.amazonaws.com.cn",
    ],
    [
      "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
      { ...host, region: "eusc-de-east-1", domain: "amazonaws.eu" },
      "https://api.ecr.eusc-de-east-1.amazonaws.eu",
    ],
    [
      "123456789012.dkr-ecr.us-east-1.on.aws",
      { ...host, dualStack: true, domain: "on.aws" },
      "https://ecr.us-east-1.api.aws",
    ],
    [
      "123456789012.dkr-ecr-fips.us-east-1.on.aws",
      { ...host, dualStack: true, fips: true, domain: "on.aws" },
      "https://ecr-fips.us-east-1.api.aws",
    ],
  ])("%s", (text, parsed, endpoint) => {
    expect(parseEcrHost(text)).toEqual(parsed);
    expect(ecrApiEndpoint(parsed)).toBe(endpoint);
  });

  test.each([
    "amazonaws.com.evil.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com:443",
    "evil.com/123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "x123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "12345678901.dkr.ecr.us-east-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.evil.com",
    "123456789012.dkr.ecr.evil.com#.us-east-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1xamazonaws.com",
    "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com.cn",
    "123456789012.dkr.ecr.us-east-1.amazonaws.eu",
    "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.com",
    "123456789012.dkr-ecr.cn-north-1.on.aws",
    "123456789012.dkr-ecr.us-east-1.on.aws.evil.com",
    "123456789012.dkr.ecr.nowhere.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.evil.com.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
    "public.ecr.aws.evil.com",
    "public.ecr.aws:443",
    "evil-public.ecr.aws",
    "constructor",
    "docker.io",
  ])("%p is none", (text) => {
    expect(parseEcrHost(text)).toBeUndefined();
    expect(parseEcrRegistry(text)).toBeUndefined();
  });

  test.each([
    ["123456789012.dkr.ecr.eu-west-1.amazonaws.com", "aws", "https://sts.eu-west-1.amazonaws.com"],
    ["123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "aws", "https://sts-fips.us-east-1.amazonaws.com"],
    ["123456789012.dkr-ecr.us-east-1.on.aws", "aws", "https://sts.us-east-1.api.aws"],
    ["123456789012.dkr-ecr-fips.us-east-1.on.aws", "aws", "https://sts-fips.us-east-1.api.aws"],
    [
      "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
      "aws-us-gov",
      "https://sts.us-gov-west-1.amazonaws.com",
    ],
    [
      "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
      "aws-us-gov",
      "https://sts.us-gov-west-1.amazonaws.com",
    ],
    ["123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "aws-cn", "https://sts.cn-north-1.amazonaws.com.cn"],
    [
      "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
      "aws-cn",
      "https://sts.cn-north-1.api.amazonwebservices.com.cn",
    ],
    [
      "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
      "aws-eusc",
      "https://sts.eusc-de-east-1.amazonaws.eu",
    ],
    ["public.ecr.aws", "aws", "https://sts.us-east-1.amazonaws.com"],
    ["ecr-public.aws.com", "aws", "https://sts.us-east-1.api.aws"],
  ])("%s is of partition %s and its STS is %s", (text, partition, sts) => {
    expect(parseEcrRegistry(text)).toMatchObject({ partition, stsEndpoint: sts });
  });

  test.each([
    ["public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com"],
    ["ecr-public.aws.com", "https://ecr-public.us-east-1.api.aws"],
  ])("%s is ECR Public, whose tokens come from %s", (text, apiEndpoint) => {
    expect(parseEcrRegistry(text)).toMatchObject({ account: undefined, region: "us-east-1", apiEndpoint });
  });

  test("says whose repositories a token opens", () => {
    expect(ecrScope("123456789012.dkr.ecr.eu-west-1.amazonaws.com")).toContain("account 123456789012");
    expect(ecrScope("public.ecr.aws")).toContain("ECR Public");
  });
});
