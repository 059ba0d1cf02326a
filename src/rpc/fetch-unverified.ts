import { get } from "node:https";

const bytesMax = 64 * 1024;
const timeoutMs = 10_000;

/**
 * Asks a server of ours for a small text over TLS without knowing who it is: nothing secret may be sent, and what comes
 * is to be checked by the caller. Rejects when there is no connection, no 200, more than 64 KiB, or no end within 10 s.
 */
export function fetchUnverified(url: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const options = {
      rejectUnauthorized: false,
      minVersion: "TLSv1.2",
      signal: limit,
      agent: false,
    } as const;
    const request = get(url, options, (response) => {
      if (response.statusCode !== 200) {
        response.resume();
        reject(new Error(`HTTP ${response.statusCode}`));
        return;
      }
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        text += part;
        if (text.length > bytesMax) request.destroy(new Error(`more than ${bytesMax} bytes`));
      });
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("error", reject);
  });
}
