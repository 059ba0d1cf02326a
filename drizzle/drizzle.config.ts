import { defineConfig } from "drizzle-kit";

// Run from the top of the repository: `drizzle-kit generate --config drizzle/drizzle.config.ts --name what-changes`.
export default defineConfig({
  dialect: "postgresql",
  schema: "./src/db/schema*.ts",
  out: "./drizzle",
});
