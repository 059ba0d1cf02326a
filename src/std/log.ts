import { configure, getLogger, type Logger, type LogRecord } from "@logtape/logtape";

export type { Logger } from "@logtape/logtape";
export type LogLevel = "debug" | "info" | "warning" | "error";

/** The logger of a room: `logger("registry").info("message", { field: value })`. Fields must not hold credentials. */
export function logger(room: string): Logger {
  return getLogger(["oci-node", room]);
}

/**
 * One JSON object per line on standard error: `time` (RFC 3339), `level`, `room`, `message`, then the fields.
 * Called once by `main`; before that, log records are dropped.
 */
export async function configureLog(level: LogLevel): Promise<void> {
  await configure({
    reset: true,
    sinks: { stderr: (record: LogRecord) => void process.stderr.write(`${formatRecord(record)}\n`) },
    loggers: [
      { category: ["oci-node"], lowestLevel: level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
    ],
  });
}

function formatRecord(record: LogRecord): string {
  const line: Record<string, unknown> = {
    time: new Date(record.timestamp).toISOString(),
    level: record.level,
    room: record.category.slice(1).join("."),
    message: record.message.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(""),
  };
  for (const [key, value] of Object.entries(record.properties)) line[key] = loggable(value);
  return JSON.stringify(line);
}

function loggable(value: unknown): unknown {
  if (value instanceof Error) return value.message;
  if (typeof value === "bigint") return Number(value);
  return value;
}
