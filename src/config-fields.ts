import { z } from "zod";
import { parseDuration } from "./std/duration.ts";
import { parseSize } from "./std/size.ts";

/** Where a server listens: `HOST:PORT`, `[::1]:PORT`; port 0 takes any free one. */
export const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, "must be HOST:PORT")
  .transform((text) => {
    const at = text.lastIndexOf(":");
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(text.slice(at + 1)) };
  });

export const size = z.string().transform((text, context) => {
  const bytes = parseSize(text);
  if (bytes === undefined)
    context.addIssue({ code: "custom", message: "must be a size such as 512Mi or 20G" });
  return bytes ?? 0;
});

/** Of `[index.limits]`: a size, or a whole number. */
export const limit = (ceiling: number) =>
  z
    .union([z.number(), z.string()])
    .transform((value) => (typeof value === "number" ? value : (parseSize(value) ?? Number.NaN)))
    .refine((value) => Number.isInteger(value) && value > 0 && value <= ceiling, {
      message: `must be a whole number or a size, from 1 to ${ceiling}`,
    });

/** A span of time for which something may wait: not 0, and no more than a timer can count. */
export const patience = z.string().transform((text, context) => {
  const ms = parseDuration(text);
  if (ms === undefined || ms === 0 || ms > 24 * 3_600_000)
    context.addIssue({ code: "custom", message: "must be a time such as 30s or 2m, up to 24h" });
  return ms ?? 0;
});

/** How long something counts: 0 is not at all. */
export const lifetime = z.string().transform((text, context) => {
  const ms = text.trim() === "0" ? 0 : parseDuration(text);
  if (ms === undefined || ms > 24 * 3_600_000)
    context.addIssue({ code: "custom", message: "must be 0 or a time such as 90s or 15m, up to 24h" });
  return ms ?? 0;
});

/** Of a mirror: `https://HOST[:PORT][/PATH]`, or `http:` for one that is spoken to in the clear. */
const mirrorUrl = z.string().refine((text) => {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && url.username + url.search + url.hash === "";
}, "must be a URL such as https://mirror.lan:5000");

export const mirrorList = z.array(
  z.union([mirrorUrl, z.strictObject({ url: mirrorUrl, ns: z.boolean().default(false) })]),
);

/** Scheme, host and port and nothing else. */
export const origin = z
  .string()
  .refine(
    (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? "") && URL.parse(text)?.origin === text,
    "must be an origin such as http://127.0.0.1:5000",
  );

/** `http://HOST:PORT`; user name and password of the proxy may be in it. */
const proxyUrl = z
  .string()
  .refine(
    (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? ""),
    "must be a URL such as http://proxy.lan:3128",
  );

export const proxySetting = z.union([z.literal("none"), proxyUrl], {
  error: 'must be "none", or a URL such as http://proxy.lan:3128',
});

/** `https://HOST:PORT`. */
export const schedulerUrl = z.string().refine(
  (text) => {
    const url = URL.parse(text);
    return url?.protocol === "https:" && url.username + url.search + url.hash === "" && url.pathname === "/";
  },
  { error: "must be a URL such as https://scheduler.lan:7071: a scheduler speaks TLS alone" },
);

/** A setting that was, and is not read any more: says so, in place of passing over what somebody relies on. */
export const obsolete = (message: string) =>
  z
    .unknown()
    .refine((value) => value === undefined, { error: message })
    .optional();
