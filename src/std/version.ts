import manifest from "../../package.json" with { type: "json" };

/** The version of this build, from `package.json`. */
export const version: string = manifest.version;

/** How we name ourselves to registries. */
export const userAgent = `oci-node/${version}`;
