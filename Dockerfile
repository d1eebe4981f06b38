# The app and its commands, without what only development needs.

FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No package needs its install script here: they bring binaries for the tests and for faster SSH ciphers.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build && npm prune --omit=dev --omit=optional --ignore-scripts
COPY migrations migrations
COPY keycloak/demo.json keycloak/archive.sha256 keycloak/
# A checkout may be closed to others than its owner; in the image another user reads it.
RUN chmod -R a+rX,go-w .

FROM node:24-bookworm-slim
ENV NODE_ENV=production
# Within a container loopback reaches nobody. Local mode still refuses to be reached unless it is told so.
ENV HOST=0.0.0.0
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY --from=build /app/migrations migrations
COPY --from=build /app/keycloak keycloak
# Nothing in the image is this user's to change, and the app writes nowhere: the root may be read-only.
USER node
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/livez`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["serve"]
