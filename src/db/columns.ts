import { bigint, customType, timestamp } from "drizzle-orm/pg-core";

/** Raw bytes; the driver gives a Buffer. */
export const bytea = customType<{ data: Uint8Array; driverData: Uint8Array }>({ dataType: () => "bytea" });

export const at = (name: string) => timestamp(name, { withTimezone: true, precision: 3 });
export const createdAt = () => at("created_at").notNull().defaultNow();
export const bytes = (name: string) => bigint(name, { mode: "number" });
