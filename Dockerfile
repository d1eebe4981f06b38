# The app and its commands, without development dependencies.

# A full version, so that a build changes only when it does. `--build-arg NODE_VERSION=...` builds with another one.
ARG NODE_VERSION=24.21.0

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No install script is needed here: they install binaries for the tests and for faster SSH ciphers.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json vite.config.ts ./
COPY src src
RUN npm run build && npm prune --omit=dev --omit=optional --ignore-scripts
COPY migrations migrations
COPY keycloak/demo.json keycloak/archive.sha256 keycloak/
# Files of a checkout may be readable for their owner only; in the image, another user reads them.
RUN chmod -R a+rX,go-w .

FROM node:${NODE_VERSION}-bookworm-slim
ENV NODE_ENV=production
# Loopback cannot be reached from outside the container. Local mode still requires ALLOW_LOCAL_MODE_EXPOSED.
ENV HOST=0.0.0.0
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY --from=build /app/migrations migrations
COPY --from=build /app/keycloak keycloak
# Docker gives an empty volume the owner of the image's folder at its path. `compose-secrets` writes into these.
RUN install -d -o node -g node -m 0700 /secrets/own \
  && install -d -o node -g node /secrets/postgres /secrets/database /secrets/keycloak /secrets/app
# This user cannot change any file of the image, and the app writes no files, so the root can be read-only.
USER node
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/livez`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["serve"]
