import type { Doctor } from '../doctor/service.ts';
import { jsonRoute, type Route } from '../http/route.ts';
import type { Identity } from '../identity/service.ts';
import { operatorRoleRequired } from '../lib/errors.ts';
import { About, OperatorView } from './schema.ts';
import { describeInstallation, type Installation } from './service.ts';

export interface AboutDeps {
  config: Installation & {
    systemDefault: {
      /** Undefined where the operator pays for nothing. */
      apiKey: string | undefined;
      provider: string;
      model: string | null;
      models: string[];
    };
  };
  identity: Pick<Identity, 'isOperator'>;
  doctor: Pick<Doctor, 'checkRealms'>;
}

/** The installation as the page's settings show it. By session only. */
export function aboutRoutes({ config, identity, doctor }: AboutDeps): Route[] {
  const about = describeInstallation(config);
  const { apiKey, provider, model, models } = config.systemDefault;
  return [
    jsonRoute({
      method: 'get',
      path: '/api/v1/about',
      access: 'session',
      response: About,
      handle: () => about,
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/operator',
      access: 'session',
      response: OperatorView,
      async handle({ principal }) {
        if (!(await identity.isOperator(principal.user.id)))
          throw operatorRoleRequired('This needs the role ops-operator. Ask an administrator for it.');
        return {
          findings: await doctor.checkRealms(),
          system_default: apiKey === undefined ? null : { provider, model, models },
        };
      },
    }),
  ];
}
