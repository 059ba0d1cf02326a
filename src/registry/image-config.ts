import { z } from "zod";

/** Go's JSON writes an empty list or map as `null` or leaves it out: both become empty. */
const textList = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? "");
const textMap = z
  .record(z.string(), z.string())
  .nullish()
  .transform((map) => map ?? {});
const nameSet = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((map) => Object.keys(map ?? {}));

const executionSchema = z.object({
  User: text,
  Env: textList,
  Entrypoint: textList,
  Cmd: textList,
  WorkingDir: text,
  StopSignal: text,
  Labels: textMap,
  ExposedPorts: nameSet,
  Volumes: nameSet,
});

const noExecution = executionSchema.parse({});

/**
 * The image configuration (OCI image specification, `config.md`), with the specification's names. What the image
 * leaves out is the empty text, list or map; `ExposedPorts` and `Volumes` are lists of names. Fields that we do not use
 * are dropped.
 */
export const imageConfigSchema = z.object({
  architecture: text,
  os: text,
  variant: text,
  created: text,
  config: executionSchema.nullish().transform((config) => config ?? noExecution),
  rootfs: z
    .object({ diff_ids: textList })
    .nullish()
    .transform((rootfs) => rootfs ?? { diff_ids: [] }),
});

export type ImageConfig = z.infer<typeof imageConfigSchema>;

/** Parses an image configuration that was read from JSON. @throws z.ZodError */
export function parseImageConfig(json: unknown): ImageConfig {
  return imageConfigSchema.parse(json);
}
