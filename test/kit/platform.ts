/** What this machine is in the words of OCI image indexes. */
export function hostPlatform(): { os: string; architecture: string } {
  const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };
  return { os: "linux", architecture: architectures[process.arch] ?? process.arch };
}
