import './document';

import { readCells } from './cells';

export { readCells };
